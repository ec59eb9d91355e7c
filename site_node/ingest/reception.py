"""What is done with each object and each request that callers send: the listener's decisions.

Success is answered only when an object is whole, is what it was announced as, and lies on the disk under its name. One
that cannot be taken gets an error status and a place in the quarantine, and its association goes on. Below the free
space that must stay, every object is refused with `Out of Resources`; that ends by itself when there is room again.
Source: DICOM PS3.4 B.2.3 (statuses of storage), PS3.7 Annex C (status codes).
"""

import re
from dataclasses import replace
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom.association import Association

from site_node.errors import DiskFullError
from site_node.ingest.commitment import (
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    Commitments,
    Transaction,
    transaction_of,
)
from site_node.ingest.counts import Counts
from site_node.ingest.intake import GivenUp, Intake, Room
from site_node.ingest.object_check import EMPTY, OTHER_CLASS, Announced, fault_of
from site_node.ingest.quarantine import Quarantine
from site_node.ingest.received_images import Kept, ReceivedImages, head_of
from site_node.listener_settings import ListenerSettings

OUT_OF_RESOURCES, OTHER_SOP_CLASS, CANNOT_UNDERSTAND, DUPLICATE_INSTANCE = 0xA700, 0xA900, 0xC000, 0x0111
UNANNOUNCED = "it was sent without a SOP class or SOP instance UID, or with one that DICOM forbids"
OTHER_BYTES = "another object with the same SOP instance UID was received before; that one is kept"
OTHER_SYNTAX = "the same SOP instance UID was received before in another transfer syntax; that one is kept"
READABLE_TITLE = re.compile(r"[A-Za-z0-9 _.:-]{1,16}")

log = structlog.get_logger()


class Reception:
    """The desk that every association comes to. Safe for several threads."""

    def __init__(
        self,
        settings: ListenerSettings,
        room: Room,
        images: ReceivedImages,
        quarantine: Quarantine,
        counts: Counts,
        commitments: Commitments,
    ) -> None:
        self.settings = settings
        self._room = room
        self._images = images
        self._quarantine = quarantine
        self._counts = counts
        self._commitments = commitments
        self._was_short = False

    def admitted(self, association: Association) -> None:
        """Count an association that was let in."""
        self._counts.add("associations")

    def turned_away(self, title: str, address: str) -> None:
        """Count and log one that was not; its title only if it is plain, for anybody chooses it."""
        self._counts.add("associations_refused")
        shown = title if READABLE_TITLE.fullmatch(title) else None
        log.warning("caller_refused", title=shown, address=address)

    def ended(self, association: Association) -> None:
        """Log what an association brought, in numbers."""
        tally = dict(association.dimse.tally)
        if tally:
            log.info("association_ended", caller=_title(association), **tally)

    def begin(self, announced: Announced | None) -> Intake:
        """Return where an object's bytes go."""
        if announced is not None:
            try:
                return Intake(self._room, announced, head_of(announced))
            except Exception:  # pydicom refuses to write a UID that is none
                announced = None
        return Intake(self._room, None, b"")

    def unannounced(self, association: Association, intake: Intake | None) -> None:
        """Quarantine an object that was not said to be anything; the caller has its answer already."""
        self._refuse(intake or Intake(self._room, None, b""), UNANNOUNCED, CANNOT_UNDERSTAND, association)

    def on_store(self, event: Any) -> int:
        """Answer C-STORE: the status for one object. Never raises."""
        intake = event.request._dataset_file
        try:
            return self._take(intake or Intake(self._room, None, b""), event.assoc)
        except (OSError, DiskFullError):
            return self._no_space(event.assoc)
        except Exception as error:  # a fault of ours must not look like one of the caller's
            log.error("object_not_taken", error=type(error).__name__)
            return PROCESSING_FAILURE
        finally:
            if intake is not None:
                intake.close()

    def _take(self, intake: Intake, association: Association) -> int:
        intake.finish()
        if intake.given_up is GivenUp.NO_SPACE:
            return self._no_space(association)
        self._was_short = False
        if intake.given_up is GivenUp.TOO_LARGE:
            return self._refuse(intake, self._too_large, CANNOT_UNDERSTAND, association)
        if intake.size == 0:
            return self._refuse(intake, EMPTY, CANNOT_UNDERSTAND, association)
        if intake.announced is None:
            return self._refuse(intake, UNANNOUNCED, CANNOT_UNDERSTAND, association)
        fault = fault_of(intake.path, intake.head_bytes, intake.announced, self._room.max_object_bytes)
        if fault is not None:
            status = OTHER_SOP_CLASS if fault == OTHER_CLASS else CANNOT_UNDERSTAND
            return self._refuse(intake, fault, status, association)
        kept = self._images.keep(intake.path, intake.announced)
        if kept is Kept.OTHER_BYTES or kept is Kept.OTHER_SYNTAX:
            reason = OTHER_BYTES if kept is Kept.OTHER_BYTES else OTHER_SYNTAX
            return self._refuse(intake, reason, DUPLICATE_INSTANCE, association)
        self._count(kept.value, association)
        return SUCCESS

    @property
    def _too_large(self) -> str:
        most = self._room.max_object_bytes >> 20
        return f"it is larger than {most} MB, the most that is accepted (max_object_mb); its bytes were not kept"

    def _refuse(self, intake: Intake, reason: str, status: int, association: Association) -> int:
        intake.finish()
        try:
            self._quarantine.add(intake, reason, _title(association))
        finally:
            intake.close()
        self._count("quarantined", association)
        return status

    def _no_space(self, association: Association) -> int:
        self._count("refused_no_space", association)
        if not self._was_short:
            log.error("disk_short", must_stay_free_mb=self._room.min_free_bytes >> 20)
            self._was_short = True
        return OUT_OF_RESOURCES

    def _count(self, name: str, association: Association) -> None:
        self._counts.add(name)
        association.dimse.tally[name] += 1

    def on_action(self, event: Any) -> tuple[int, Dataset | None]:
        """Answer a request for storage commitment; the result follows. What cannot be decoded the library refuses."""
        request = event.request
        found = transaction_of(request.ActionTypeID, str(request.RequestedSOPInstanceUID), event.action_information)
        if not isinstance(found, Transaction):
            return found, None
        title, address = _title(event.assoc), event.assoc.requestor.address_info.address
        found = replace(found, caller=title, address=address)
        caller = self.settings.caller(title, address)
        if caller is not None and caller.commitment_port is not None:
            return (SUCCESS if self._commitments.owe(found) else RESOURCE_LIMITATION), None
        event.assoc.dimse.owed.append(found)
        return SUCCESS, None

    def action_answered(self, association: Association, context_id: int) -> None:
        """Tell the result on this association, now that the request has its answer."""
        while association.dimse.owed:
            self._commitments.tell_here(association, association.dimse.owed.pop())


def _title(association: Association) -> str:
    return str(association.requestor.ae_title).strip()
