"""Storage commitment: a modality asks whether we have taken responsibility for its images, and deletes its own if so.

An instance is committed if it lies in the received folder under its SOP instance UID, with the SOP class that was
named: it was put on the disk before its receipt was answered. The result goes to the caller's own port if site.yaml
names one, over a new association and tried again for a day, also after a restart; else over the association of the
request, once.
Source: DICOM PS3.4 Annex J (Storage Commitment Push Model).
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.pdu_primitives import A_RELEASE
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from site_node.dicom.element_value import text_of
from site_node.durable import finished_files, write_durably
from site_node.ingest.received_images import ReceivedImages

REQUEST_COMMITMENT = 1  # action type, PS3.4 J.3.2
ALL_COMMITTED, SOME_FAILED = 1, 2  # event types, PS3.4 J.3.3
SUCCESS, PROCESSING_FAILURE, NO_SUCH_INSTANCE, INVALID_ARGUMENT = 0x0000, 0x0110, 0x0112, 0x0115
CLASS_CONFLICT, RESOURCE_LIMITATION, NO_SUCH_ACTION = 0x0119, 0x0213, 0x0123
MOST_INSTANCES = 100_000
MOST_WAITING_RESULTS = 1000
RETRY_SECONDS = 60.0
MOST_TRIES = 24 * 60
GRACE_SECONDS = 0.2  # a caller that wants no result on this association releases it at once


@dataclass(frozen=True)
class Transaction:
    """One request: who waits where for the result, and which (SOP class, SOP instance) it asks about."""

    transaction_uid: str
    references: tuple[tuple[str, str], ...]
    caller: str = ""
    address: str = ""
    tries: int = 0

    def result(self, images: ReceivedImages) -> tuple[int, Dataset]:
        """Return the event type and the event information of the result as it is now."""
        committed: list[Dataset] = []
        failed: list[Dataset] = []
        for class_uid, instance_uid in self.references:
            kept = images.class_of(instance_uid)
            reason = NO_SUCH_INSTANCE if kept is None else SUCCESS if kept == class_uid else CLASS_CONFLICT
            (failed if reason else committed).append(_reference(class_uid, instance_uid, reason))
        information = Dataset()
        information.TransactionUID = self.transaction_uid
        if committed:
            information.ReferencedSOPSequence = committed
        if failed:
            information.FailedSOPSequence = failed
        return SOME_FAILED if failed else ALL_COMMITTED, information


def transaction_of(action_type: int | None, instance_uid: str, information: Dataset) -> Transaction | int:
    """Read a request; return the status of refusal if it is not one that can be answered."""
    if action_type != REQUEST_COMMITMENT:
        return NO_SUCH_ACTION
    if instance_uid != StorageCommitmentPushModelInstance:
        return NO_SUCH_INSTANCE
    items: Sequence[Dataset] = information.get("ReferencedSOPSequence") or ()
    uid = text_of(information, "TransactionUID")
    if len(items) > MOST_INSTANCES:
        return RESOURCE_LIMITATION
    pairs = tuple(
        (text_of(item, "ReferencedSOPClassUID") or "", text_of(item, "ReferencedSOPInstanceUID") or "")
        for item in items
    )
    if not uid or len(uid) > 64 or not pairs or not all(one and other for one, other in pairs):
        return INVALID_ARGUMENT
    return Transaction(uid, pairs)


Carrier = Callable[[Transaction, int, Dataset], bool]
"""Takes a result to the caller's own port; tells whether it was acknowledged."""


class Commitments:
    """Results that wait to be told."""

    def __init__(self, folder: Path, images: ReceivedImages, carry: Carrier, count: Callable[[str], None]) -> None:
        self._folder = folder
        self._images = images
        self._carry = carry
        self._count = count
        self._number = 0
        self._next_try: dict[str, float] = {}
        self._lock = threading.Lock()

    def owe(self, transaction: Transaction) -> bool:
        """Remember, over restarts too, that a result is to be carried; False if too many wait."""
        with self._lock:
            if len(list(finished_files(self._folder, ".json"))) >= MOST_WAITING_RESULTS:
                return False
            self._number += 1
            path = self._folder / f"{time.time_ns()}-{self._number}.json"
            write_durably(path, json.dumps(asdict(transaction)).encode())
        return True

    def carry_due(self, now: float | None = None) -> None:
        """Try every result that is due."""
        now = time.monotonic() if now is None else now
        for path in finished_files(self._folder, ".json"):
            if self._next_try.get(path.name, now) > now:
                continue
            transaction = _read(path)
            if self._carry(transaction, *transaction.result(self._images)):
                self._done(path, "commitments")
            elif transaction.tries + 1 >= MOST_TRIES:
                self._done(path, "commitments_undelivered")
            else:
                self._next_try[path.name] = now + RETRY_SECONDS
                write_durably(path, json.dumps(asdict(replace(transaction, tries=transaction.tries + 1))).encode())

    def tell_here(self, association: Any, transaction: Transaction) -> None:
        """Tell the result on the association of the request, from a thread of its own."""
        threading.Thread(target=self._tell, args=(association, transaction), daemon=True).start()

    def _tell(self, association: Any, transaction: Transaction) -> None:
        told = False
        if not _is_leaving(association):
            try:
                event_type, information = transaction.result(self._images)
                status, _ = association.send_n_event_report(
                    information, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
                )
                told = status.get("Status") == SUCCESS
            except (RuntimeError, ValueError, OSError):  # the association ended meanwhile
                told = False
        self._count("commitments" if told else "commitments_undelivered")

    def _done(self, path: Path, name: str) -> None:
        path.unlink(missing_ok=True)
        self._next_try.pop(path.name, None)
        self._count(name)


def _is_leaving(association: Any) -> bool:
    """Tell whether the caller has released the association, or does so within the time of grace."""
    end = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < end and association.is_established:
        if isinstance(association.dul.peek_next_pdu(), A_RELEASE):
            return True
        time.sleep(0.01)
    return not association.is_established


def _reference(class_uid: str, instance_uid: str, reason: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, instance_uid
    if reason:
        item.FailureReason = reason
    return item


def _read(path: Path) -> Transaction:
    found = json.loads(path.read_bytes())
    return Transaction(**{**found, "references": tuple((one, other) for one, other in found["references"])})
