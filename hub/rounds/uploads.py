"""The coordinator of uploads: announced, received, then accepted or refused; each change is one transaction.

A transfer's id is the digest of its notice, so that announcing it again leads to the same one. Its row is the task's
final answer: what was refused stays refused, and the receipt can be asked for again at any time.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from pathlib import Path

import structlog

from hub.aggregation.admission import Admitted, Terms, check_announced_size
from hub.aggregation.chunks import squared_norm
from hub.aggregation.norm_bound import fresh_norm_bound, update_norm_bound
from hub.aggregation.opening import Bytes
from hub.errors import AdmissionError, NotFoundError, StateError
from hub.rounds.asking import Turn, own_task, settle, turn_on
from hub.rounds.coordinator import advance
from hub.rounds.messages import open_message
from hub.rounds.participants import weight_of
from hub.rounds.receipts import signed_receipt
from hub.rounds.terms import check_notice, stored_task
from hub.rounds.transfers import TRANSFERS, Transfer, remove_files, size_of
from hub.rounds.transitions import WAITING_TASK_STATES, TaskEvent, is_waiting
from hub.services import Services
from hub.storage import round_stores, stores
from hub.storage.database import Session
from hub.storage.tables import TaskRow, UpdateRow, UploadRow
from hub.studies.ledger_heads import account_problem
from protocol.compression.terms import norm_factor, upload_steps, upload_terms
from protocol.digest import digest_of_bytes, hex_of
from protocol.homomorphic.vector_form import form_of
from protocol.messages import TaskKind, UpdateNotice, expect
from protocol.secure_aggregation.vector import vector_terms
from protocol.signing import read_unverified
from protocol.tensors import read_manifest

RECEIVING, ACCEPTED, REFUSED = "receiving", "accepted", "refused"
LATE = "The task is no longer open: its round went on without this answer."
ANOTHER = "Another update was announced for this task; one answer is taken for each."
_NORM = threading.Lock()
_log = structlog.get_logger()


@dataclass(frozen=True)
class UploadState:
    """How far a transfer is; the receipt's envelope once it is settled."""

    upload_id: str
    offset: int
    receipt: bytes | None

    def document(self) -> dict[str, str | int | None]:
        """Return what the API answers."""
        receipt = self.receipt.decode() if self.receipt is not None else None
        return {"upload_id": self.upload_id, "offset": self.offset, "receipt": receipt}


def announce(services: Services, site: str, envelope: bytes) -> UploadState:
    """Take an update's notice and say where to go on sending; repeating it changes nothing.

    Raises: SignatureError, MessageError or NotPermittedError if the site's gate did not sign such a notice;
        NotFoundError if the site has no such task.
    """
    notice = open_message(services, site, envelope, UpdateNotice)
    message_digest = digest_of_bytes(read_unverified(envelope))
    unaccounted = account_problem(services, site, notice)
    with services.transaction() as session:
        task = own_task(session, site, notice.task_id)
        known = round_stores.upload_of_task(session, task.task_id)
        if known is None:
            known = _open_upload(session, services, task, notice, envelope, hex_of(message_digest))
            if unaccounted is not None and known.state == RECEIVING:
                _refuse_in(session, services, known, unaccounted)
        elif known.upload_id != hex_of(message_digest):
            return UploadState("", 0, signed_receipt(services.key, message_digest, ANOTHER, services.clock()))
        round_stores.count_bytes(session, task.task_id, up=len(envelope))
        upload_id = known.upload_id
    return look_up(services, site, upload_id)


def look_up(services: Services, site: str, upload_id: str, received_bytes: int = 0) -> UploadState:
    """Say how far a transfer is, and settle it if its last byte is there (a hub may have been killed just then).

    `received_bytes` were taken by the caller since the last look; they are added to the task's traffic.
    Raises: NotFoundError if the site has no such transfer.
    """
    state, whole = _standing(services, site, upload_id)
    if whole:
        received_bytes = _complete_unless_claimed(services, site, upload_id, received_bytes)
        state, _ = _standing(services, site, upload_id)
    if received_bytes:
        count_received(services, site, upload_id, received_bytes)
    return state


def _standing(services: Services, site: str, upload_id: str) -> tuple[UploadState, bool]:
    """Return how far a transfer is, and whether all its bytes are there and it is not settled."""
    folder = services.settings.uploads
    with services.reading() as session:
        row = _own_upload(session, site, upload_id)
        offset = row.payload_bytes if row.state == ACCEPTED else size_of(folder / upload_id)
        state = UploadState(upload_id, offset, _receipt(session, services, row))
    if row.state != RECEIVING:
        TRANSFERS.drop(folder, upload_id)  # another process may have settled it
    return state, row.state == RECEIVING and offset >= row.payload_bytes


def open_transfer(services: Services, site: str, upload_id: str) -> Transfer | None:
    """Return the transfer to append to, or None if it is settled.

    Raises: NotFoundError if the site has no such transfer.
    """
    folder = services.settings.uploads
    with services.reading() as session:
        row = _own_upload(session, site, upload_id)
        if row.state != RECEIVING:
            TRANSFERS.drop(folder, upload_id)  # another process may have settled it
            return None
        known = TRANSFERS.get(folder, upload_id)
        terms, keeping = _terms(session, services, row), services.settings.keeping
        return known or TRANSFERS.add(Transfer(folder, upload_id, terms, keeping))


@contextmanager
def claimed(services: Services, site: str, upload_id: str) -> Iterator[Transfer | None]:
    """Hold a transfer while its bytes come, against all requests of all processes; None if it is settled.

    Raises: NotFoundError if the site has no such transfer, StateError if another request holds it.
    """
    transfer = open_transfer(services, site, upload_id)
    if transfer is None:
        yield None
        return
    with transfer.claim():
        # It may have been settled, and its file removed, between the look and the claim, which makes the file.
        standing = open_transfer(services, site, upload_id)
        if standing is None:
            _forget(services, upload_id)
        yield standing


def append(services: Services, upload_id: str, transfer: Transfer, offset: int, data: Bytes) -> int | None:
    """Take the next bytes and return the new offset; None if they made the update refused.

    Raises: StateError if the transfer stands elsewhere.
    """
    try:
        with transfer.lock:
            return transfer.append(offset, data)
    except AdmissionError as error:
        _refuse(services, upload_id, error.message)
        return None


def take(services: Services, upload_id: str, transfer: Transfer, file: Path) -> bool:
    """Take a whole file of this process's own in place of its bytes; tell whether that was possible.

    What is refused is settled here, like bytes that are refused while they come.
    """
    keeping = services.settings.keeping
    if not keeping.knows(file, transfer.terms.payload_digest):
        return False
    try:
        with transfer.lock:
            return transfer.take(file, keeping)
    except AdmissionError as error:
        _refuse(services, upload_id, error.message)
        return True


def _complete_unless_claimed(services: Services, site: str, upload_id: str, received_bytes: int) -> int:
    """Settle a transfer and return how many of the received bytes are still to be counted."""
    # Whoever holds it settles it; the site is told how far it is, and asks again.
    with ExitStack() as held:
        try:
            transfer = held.enter_context(claimed(services, site, upload_id))
        except StateError:
            return received_bytes
        if transfer is not None and transfer.received_bytes >= transfer.terms.payload_bytes:
            complete(services, upload_id, transfer, received_bytes)
            return 0
    return received_bytes


def complete(services: Services, upload_id: str, transfer: Transfer, received_bytes: int = 0) -> None:
    """Settle a claimed transfer whose last byte has come: store the blob, then one row in one transaction."""
    try:
        with transfer.lock:
            admitted = transfer.finish()
            services.blobs.keep(transfer.plain_path, admitted.digest)
    except AdmissionError as error:
        _refuse(services, upload_id, error.message, received_bytes)
        return
    with services.transaction() as session:
        row = round_stores.upload(session, upload_id)
        if row is not None:
            round_stores.count_bytes(session, row.task_id, up=received_bytes)
        if row is not None and row.state == RECEIVING:
            _accept(session, services, row, admitted)
    _forget(services, upload_id)


def refuse_late(services: Services) -> int:
    """Refuse the transfers whose task is no longer open, and free their disk; return how many there were."""
    with services.reading() as session:
        late = round_stores.uploads_without(session, RECEIVING, [state.value for state in WAITING_TASK_STATES])
    for upload_id in late:
        _refuse(services, upload_id, LATE)
    return len(late)


def count_received(services: Services, site: str, upload_id: str, received_bytes: int) -> None:
    """Add to the traffic of the task that a transfer answers."""
    with services.transaction() as session:
        row = _own_upload(session, site, upload_id)
        round_stores.count_bytes(session, row.task_id, up=received_bytes)


def _open_upload(
    session: Session, services: Services, task: TaskRow, notice: UpdateNotice, envelope: bytes, upload_id: str
) -> UploadRow:
    row = UploadRow(
        upload_id=upload_id,
        task_id=task.task_id,
        notice=envelope,
        payload_digest=notice.payload_digest,
        payload_bytes=notice.payload_bytes,
        state=RECEIVING,
        created_at=services.clock(),
    )
    session.add(row)
    session.flush()
    try:
        if not is_waiting(task.state):
            raise AdmissionError(LATE)
        spec = turn_on(session, services, task.study).spec
        check_notice(notice, stored_task(task.document), spec, _patients(session, task))
        check_announced_size(_terms(session, services, row))
    except AdmissionError as error:
        _refuse_in(session, services, row, error.message)
    return row


def _terms(session: Session, services: Services, row: UploadRow) -> Terms:
    notice = expect(read_unverified(row.notice), UpdateNotice)
    task_row = round_stores.task(session, row.task_id)
    if task_row is None:
        raise NotFoundError("The transfer's task is gone.", "Restore the hub's database from a backup.")
    task = stored_task(task_row.document)
    shape = (notice.payload_digest, notice.payload_bytes, tuple(notice.steps), notice.manifest_digest)
    if task.base is None:
        return Terms(*shape, manifest=None, norm_bound=fresh_norm_bound)
    turn = turn_on(session, services, task_row.study)
    spec, noise, patients = turn.spec, turn.study.noise_multiplier, _patients(session, task_row)
    path = services.blobs.path(task.base.weights_digest)
    if spec.secure_aggregation.method != "none" and task.kind in (TaskKind.TRAIN, TaskKind.DECRYPT):
        manifest = read_manifest(path)
        vector = vector_terms(spec, manifest.parameters)
        encrypted = task.kind is TaskKind.TRAIN and spec.secure_aggregation.method == "homomorphic"
        form = form_of(vector, task.study_digest, task.round, notice.key_id or "") if encrypted else None
        return Terms(*shape, manifest, fresh_norm_bound, vector, form)
    base_norm, manifest = _base_norm(path), read_manifest(path)
    named = (task.update_norm, task.rate_factor)

    def bound(parameters: int) -> float:
        return norm_factor(spec) * update_norm_bound(spec, noise, base_norm, parameters, patients, *named)

    coding = upload_terms(spec, manifest, task.round) if upload_steps(spec).is_coded else None
    return Terms(*shape, manifest, bound, coding=coding)


def _base_norm(path: Path) -> float:
    with _NORM:  # the sites of a round ask at the same moment: one reads the version, the others find what it found
        return _norm_of(path)


@lru_cache(maxsize=64)
def _norm_of(path: Path) -> float:
    # A blob's path is its digest: what was computed once stays true.
    return sqrt(squared_norm(path, read_manifest(path)))


def _accept(session: Session, services: Services, row: UploadRow, admitted: Admitted) -> None:
    task = round_stores.task(session, row.task_id)
    if task is None or not is_waiting(task.state):
        _refuse_in(session, services, row, LATE)
        return
    notice = expect(read_unverified(row.notice), UpdateNotice)
    turn = turn_on(session, services, task.study)
    if task.kind == TaskKind.DECRYPT:
        row.state = ACCEPTED
        settle(turn, task, TaskEvent.ANSWERED)
        turn.audit(f"site:{task.site}", "sum.decrypted", task.task_id, {"blob": admitted.digest})
        advance(session, services, task.study)
        return
    account = notice.privacy
    update = UpdateRow(
        task_id=task.task_id,
        study=task.study,
        round=task.round,
        site=task.site,
        blob=admitted.digest,
        weight=_weight(turn, task),
        norm=admitted.norm,
        epsilon=account.epsilon if account else None,
        delta=account.delta if account else None,
        notice=row.notice,
        receipt=None if notice.receipt is None else notice.receipt.model_dump_json(),
        accepted_at=turn.now,
    )
    session.add(update)
    row.state = ACCEPTED
    settle(turn, task, TaskEvent.ANSWERED)
    details: dict[str, object] = {"blob": update.blob, "weight": update.weight, "notice": "sha256:" + row.upload_id}
    turn.audit(f"site:{task.site}", "update.accepted", task.task_id, details)
    advance(session, services, task.study)


def _patients(session: Session, task: TaskRow) -> int:
    row = stores.find_participant(session, task.study, task.site)
    return row.training_patients if row else 0


def _weight(turn: Turn, task: TaskRow) -> float:
    if task.round == 0 or turn.spec.secure_aggregation.method != "none":
        return 1.0  # under masks the weight is inside the vector
    return weight_of(_patients(turn.session, task), turn.spec.strategy.weighting)


def _refuse(services: Services, upload_id: str, reason: str, received_bytes: int = 0) -> None:
    with services.transaction() as session:
        row = round_stores.upload(session, upload_id)
        if row is not None:
            round_stores.count_bytes(session, row.task_id, up=received_bytes)
        if row is not None and row.state == RECEIVING:
            _refuse_in(session, services, row, reason)
    _forget(services, upload_id)


def _refuse_in(session: Session, services: Services, row: UploadRow, reason: str) -> None:
    row.state, row.reason = REFUSED, reason[:500]
    task = round_stores.task(session, row.task_id)
    if task is None:
        return
    turn = turn_on(session, services, task.study)
    details: dict[str, object] = {"site": task.site, "reason": reason, "notice": "sha256:" + row.upload_id}
    turn.audit("hub", "update.refused", task.task_id, details)
    _log.warning("update_refused", task=task.task_id, reason=reason)
    if is_waiting(task.state):
        settle(turn, task, TaskEvent.REFUSED, reason, actor="hub")
        advance(session, services, task.study)


def _forget(services: Services, upload_id: str) -> None:
    folder = services.settings.uploads
    TRANSFERS.drop(folder, upload_id)
    remove_files(folder, upload_id)


def _own_upload(session: Session, site: str, upload_id: str) -> UploadRow:
    row = round_stores.upload(session, upload_id)
    if row is None:
        raise NotFoundError("There is no such transfer.", "Announce the update first.")
    own_task(session, site, row.task_id)
    return row


def _receipt(session: Session, services: Services, row: UploadRow) -> bytes | None:
    if row.state == RECEIVING:
        return None
    task = round_stores.task(session, row.task_id)
    received_at = task.answered_at if task and task.answered_at is not None else row.created_at
    reason = row.reason if row.state == REFUSED else None
    return signed_receipt(services.key, "sha256:" + row.upload_id, reason, received_at)
