"""Where a fetched instance goes: checked, then kept beside what modalities sent, or quarantined with its reason.

The same places and the same checks as the listener's, so that an instance is here once, however it came.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from site_node.dicom.quiet import quiet
from site_node.durable import remove
from site_node.errors import DiskFullError
from site_node.ingest.answers import FoundInstance
from site_node.ingest.intake import GivenUp, Intake, Room
from site_node.ingest.object_check import Announced, fault_of
from site_node.ingest.pacs import Arrived
from site_node.ingest.quarantine import Quarantine
from site_node.ingest.received_images import Kept, ReceivedImages, head_of

TOO_LARGE = "larger than is accepted"
OTHER_BYTES = "another object with the same SOP instance UID is here already"
NO_NAME = "it has no SOP class or SOP instance UID, or one that DICOM forbids"


@dataclass(frozen=True)
class Shelf:
    """The folder of received images, that of refused objects, and the room that is left; `caller` names the PACS."""

    images: ReceivedImages
    refused: Quarantine
    room: Room
    caller: str

    @classmethod
    def at(cls, images: Path, quarantine: Path, room: Room, caller: str) -> "Shelf":
        """Open the folders, making those that are missing, and clear what a killed run left half written."""
        for folder in (images, quarantine, room.folder):
            folder.mkdir(parents=True, exist_ok=True)
        for left in room.folder.glob("*.part"):
            remove(left)
        return cls(ReceivedImages(images), Quarantine(quarantine), room, caller)

    def missing(self, instances: Iterable[FoundInstance]) -> list[FoundInstance]:
        """Return those instances that are not here."""
        return [instance for instance in instances if not self.images.path_of(instance.uid).is_file()]

    def check_room(self) -> None:
        """Raise DiskFullError if less is free than must stay free."""
        if self.room.is_short():
            raise _no_room()

    def put(self, arrived: Arrived) -> str | None:
        """Keep an instance and return None; or quarantine it and return the reason.

        Guarantee: when this returns, the instance is on the disk, whole.
        Raises: DiskFullError if there is no room for it.
        """
        announced, intake = arrived.announced, self._intake(arrived.announced)
        try:
            self._write(intake, arrived.content)
            if intake.announced is None:
                return self._refuse(intake, NO_NAME)
            if intake.given_up is GivenUp.TOO_LARGE:
                return self._refuse(intake, TOO_LARGE)
            with quiet():
                fault = fault_of(intake.path, intake.head_bytes, announced, self.room.max_object_bytes)
            if fault is not None:
                return self._refuse(intake, fault)
            if self.images.keep(intake.path, announced) is Kept.OTHER_BYTES:
                return self._refuse(intake, OTHER_BYTES)
            return None
        except OSError as error:
            raise _no_room() from error
        finally:
            intake.close()

    def _write(self, intake: Intake, content: bytes) -> None:
        intake.write(content)
        intake.finish()
        if intake.given_up is GivenUp.NO_SPACE:
            raise _no_room()

    def _intake(self, announced: Announced) -> Intake:
        try:
            return Intake(self.room, announced, head_of(announced))
        except Exception:  # pydicom refuses to write a UID that is none, one way or another
            return Intake(self.room, None, b"")

    def _refuse(self, intake: Intake, reason: str) -> str:
        self.refused.add(intake, reason, self.caller)
        return reason


def _no_room() -> DiskFullError:
    return DiskFullError("The site's disk has no room for more images.", "Make room, then run the same command again.")
