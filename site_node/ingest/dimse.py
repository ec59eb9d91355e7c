"""A PACS spoken to over DICOM: C-ECHO, C-FIND, then C-GET, or C-MOVE to the site's own listener.

C-GET needs no port of ours open and is tried first. A PACS that does not offer it, or hangs up on it, is asked by
C-MOVE to send to `move_to`, the AE title of the site's listener (`wardround site listen`), if site.yaml names one.

Source: DICOM PS3.4 annex C (Query/Retrieve Service Class), PS3.7 C.4 (statuses), PS3.8 9.3.4 (rejections).
"""

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from site_node.errors import PacsError, PacsRefusedError, SettingsError
from site_node.ingest.answers import FoundInstance
from site_node.ingest.association import Line, NotOfferedError, storage_contexts
from site_node.ingest.object_check import Announced
from site_node.ingest.pacs import MAX_ANSWERS, RETURN_KEYS, Arrived, Level, Receive, TruncatedAnswerError
from site_node.pacs_settings import PacsSettings

SUCCESS, PENDING = 0x0000, (0xFF00, 0xFF01)
CUT_SHORT = (0xFE00, *range(0xA700, 0xA800))
UNKNOWN_DESTINATION = 0xA801
NOT_OFFERED = (0x0122, 0x0211, 0x0124)  # SOP class not supported, unrecognised operation, not authorised
STORED, NOT_STORED = 0x0000, 0xA700
FIND = StudyRootQueryRetrieveInformationModelFind
GET = StudyRootQueryRetrieveInformationModelGet
MOVE = StudyRootQueryRetrieveInformationModelMove
HUNG_UP = "the PACS ended the connection, or fell silent, before its answer was whole"
NOT_SENT = "(with C-MOVE it sends to our listener: is `wardround site listen` running, and does the PACS reach it?)"


class DimsePacs:
    """One PACS over DICOM; queries share one association."""

    def __init__(self, settings: PacsSettings) -> None:
        self._settings = settings
        self._tls = _tls_context(settings)
        self._asking: Line | None = None
        self._offers_get: bool | None = None  # not known yet

    def echo(self) -> str:
        """Send a C-ECHO."""
        with self._line([(Verification, None)]) as line:
            line.need(Verification)
            status = _status(line.association.send_c_echo())
            if status != SUCCESS:
                raise PacsError(f"the PACS answered C-ECHO with status {status:04X}")
        return f"C-ECHO answered by {self._settings.ae_title}"

    def find(self, level: Level, keys: Mapping[str, str]) -> list[Dataset]:
        """Send a C-FIND and return what it matches."""
        question = Dataset()
        question.QueryRetrieveLevel = level
        for keyword in dict.fromkeys((*RETURN_KEYS[level], *keys)):
            setattr(question, keyword, keys.get(keyword, ""))
        fresh = not self._is_asking()
        try:
            return self._ask(question)
        except PacsError as error:
            if fresh or error.lasting or self._is_asking():
                raise
            return self._ask(question)  # an association that lay idle was hung up on: that is nobody's fault

    def _ask(self, question: Dataset) -> list[Dataset]:
        answers: list[Dataset] = []
        with _told():
            for status, answer in self._asking_line().association.send_c_find(question, FIND):
                code = _status(status)
                if code in PENDING and answer is not None and len(answers) < MAX_ANSWERS:
                    answers.append(answer)
                elif code in CUT_SHORT:
                    raise TruncatedAnswerError
                elif code not in (*PENDING, SUCCESS):
                    raise PacsError(f"the PACS refused the query with status {code:04X}", lasting=True)
        return answers

    def fetch(
        self, study: str, series: str, instances: Sequence[FoundInstance], *, whole: bool, receive: Receive
    ) -> str | None:
        """Have instances sent: by C-GET over the same association, or by C-MOVE to the listener."""
        uids = [None] if whole else [instance.uid for instance in instances]
        questions = [_identifier(study, series, uid) for uid in uids]
        code = self._get(questions, instances, receive) if self._offers_get is not False else None
        if code is None:
            code = self._move(questions)
            self._offers_get = False  # only now: a C-MOVE was answered
            if code != SUCCESS:
                return f"{_ended(code)} {NOT_SENT}"
        return None if code == SUCCESS else _ended(code)

    def close(self) -> None:
        """Release the association for queries."""
        if self._asking is not None:
            self._asking.close()
            self._asking = None

    def _get(self, questions: Sequence[Dataset], instances: Sequence[FoundInstance], receive: Receive) -> int | None:
        """Send C-GETs and return the worst status; None if the PACS offers no C-GET."""
        storing, worst = _Storing(receive), SUCCESS
        contexts, roles = storage_contexts({instance.sop_class for instance in instances})
        try:
            line = self._line([(GET, None), *contexts], roles, [(evt.EVT_C_STORE, storing.on_store)])
        except NotOfferedError:
            return None
        with line:
            if not line.accepts(GET):
                return None
            for number, question in enumerate(questions, start=1):
                try:
                    with _told():
                        code = _last_status(line.association.send_c_get(question, GET, msg_id=number % 65535 + 1))
                except PacsError:
                    storing.raise_failure()
                    if self._offers_get or storing.came or self._settings.move_to is None:
                        raise
                    return None  # some hang up in place of saying that they offer none
                storing.raise_failure()
                if code in NOT_OFFERED:
                    return None
                worst = code if code != SUCCESS else worst
        self._offers_get = True
        return worst

    def _move(self, questions: Sequence[Dataset]) -> int:
        """Send C-MOVEs and return the worst status."""
        worst = SUCCESS
        destination = self._settings.move_to
        if destination is None:
            raise PacsRefusedError(
                "the PACS offers no C-GET to us",
                "Allow it there, or run `wardround site listen`, tell the PACS about that listener, and write its AE "
                "title into pacs.move_to.",
            )
        with self._line([(MOVE, None)]) as line:
            line.need(MOVE)
            for number, question in enumerate(questions, start=1):
                with _told():
                    move = line.association.send_c_move(question, destination, MOVE, msg_id=number % 65535 + 1)
                    code = _last_status(move)
                if code == UNKNOWN_DESTINATION:
                    raise PacsRefusedError(
                        "the PACS does not know the AE title in pacs.move_to",
                        "Have the listener's AE title, address and port entered in the PACS.",
                    )
                if code in NOT_OFFERED:
                    raise PacsRefusedError("the PACS offers us neither C-GET nor C-MOVE", "Allow one of them there.")
                worst = code if code != SUCCESS else worst
        return worst

    def _is_asking(self) -> bool:
        return self._asking is not None and bool(self._asking.association.is_established)

    def _asking_line(self) -> Line:
        if self._asking is None or not self._is_asking():
            self._asking = self._line([(FIND, None)])
            self._asking.need(FIND)
        return self._asking

    def _line(self, contexts: Sequence[Any], roles: Sequence[Any] = (), handlers: Sequence[Any] = ()) -> Line:
        return Line.open(self._settings, self._tls, contexts, roles, handlers)


def _ended(code: int) -> str:
    return f"the PACS ended with status {code:04X}"


class _Storing:
    """What answers the C-STOREs of a C-GET; an exception on the way is kept, because the library would swallow it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._failure: BaseException | None = None
        self.came = 0

    def on_store(self, event: Any) -> int:
        if self._failure is not None:
            return NOT_STORED
        self.came += 1
        try:
            self._receive(_arrived(event))
        except BaseException as error:
            self._failure = error
            return NOT_STORED
        return STORED

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _identifier(study: str, series: str, instance: str | None) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES" if instance is None else "IMAGE"
    identifier.StudyInstanceUID, identifier.SeriesInstanceUID = study, series
    if instance is not None:
        identifier.SOPInstanceUID = instance
    return identifier


def _arrived(event: Any) -> Arrived:
    request, syntax = event.request, event.context.transfer_syntax
    announced = Announced(
        class_uid=str(request.AffectedSOPClassUID),
        instance_uid=str(request.AffectedSOPInstanceUID),
        syntax=str(syntax),
    )
    return Arrived(announced, request.DataSet.getvalue())


def _last_status(responses: Any) -> int:
    """Return the status that ends a C-GET or C-MOVE.

    Failed sub-operations are no error here: what did not come is seen by what is there.
    """
    code = PENDING[0]
    for status, _ in responses:
        code = _status(status)
    return code


def _status(status: Dataset) -> int:
    if "Status" not in status:
        raise PacsError(HUNG_UP)
    return int(status.Status)


@contextmanager
def _told() -> Iterator[None]:
    """Turn what pynetdicom raises into our errors; its texts may quote what was asked."""
    try:
        yield
    except (RuntimeError, ValueError, AttributeError, TypeError) as error:
        raise PacsError("the question or the answer cannot be written as DICOM demands") from error


def _tls_context(settings: PacsSettings) -> ssl.SSLContext | None:
    tls = settings.tls
    if tls is None:
        return None
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.certificate and tls.key:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:  # ssl.SSLError too
        raise SettingsError(
            f"A file of pacs.tls cannot be used: {error.strerror or 'it is no certificate or key'}.",
            "Name PEM files that the ingest process may read.",
        ) from None
    return context
