"""What retrieving needs of a PACS, whichever way it is spoken to: over DICOM (dimse.py) or over DICOMweb (dicomweb.py).

Every method raises PacsAwayError if the PACS does not answer, PacsRefusedError if it does not let us in, PacsError for
anything else it answers; no message holds a patient's data, a UID or an accession number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydicom.dataset import Dataset

from site_node.errors import PacsError, SettingsError
from site_node.ingest.answers import FoundInstance
from site_node.ingest.object_check import Announced
from site_node.pacs_settings import PacsSettings

Level = Literal["STUDY", "SERIES", "IMAGE"]
MAX_ANSWERS = 1_000_000
RETURN_KEYS: Mapping[Level, tuple[str, ...]] = {
    "STUDY": (
        *("StudyInstanceUID", "AccessionNumber", "ModalitiesInStudy", "StudyDate"),
        *("PatientSex", "PatientAge", "PatientBirthDate", "NumberOfStudyRelatedInstances"),
    ),
    "SERIES": (
        *("SeriesInstanceUID", "Modality", "BodyPartExamined"),
        *("Manufacturer", "ProtocolName", "SeriesDescription"),  # a PACS need not tell these
    ),
    "IMAGE": ("SOPInstanceUID", "SOPClassUID"),
}


@dataclass(frozen=True)
class Arrived:
    """One instance as it came: what it was announced to be, and the data set's own bytes."""

    announced: Announced
    content: bytes


class TruncatedAnswerError(PacsError):
    """The PACS says that more matches than it told."""

    def __init__(self) -> None:
        super().__init__(
            "the PACS cut its answer short", "Narrow the question with --from and --until, or a list.", lasting=True
        )


Receive = Callable[[Arrived], None]


class Pacs(Protocol):
    """A PACS that can be asked and fetched from."""

    def echo(self) -> str:
        """Ask whether it is there and knows us; return in a few words what answered."""
        ...

    def find(self, level: Level, keys: Mapping[str, str]) -> list[Dataset]:
        """Return its answers to a query; `keys` narrow it.

        Raises: TruncatedAnswerError if the PACS says that there is more than it told.
        """
        ...

    def fetch(
        self, study: str, series: str, instances: Sequence[FoundInstance], *, whole: bool, receive: Receive
    ) -> str | None:
        """Have these instances of a series sent, each handed to `receive` as it comes, in any order.

        `whole` says that they are all of the series. What does not come is for the caller to notice, who knows what is
        here; returned is what the PACS says about that. An exception of `receive` ends the fetch and is raised.
        """
        ...

    def close(self) -> None:
        """Hang up."""
        ...


def open_pacs(settings: PacsSettings | None) -> Pacs:
    """Return the PACS that the settings name; nothing is asked of it yet.

    Raises: SettingsError if none is named, or a file that they name is not usable.
    """
    if settings is None:
        raise SettingsError("site.yaml names no PACS.", "Write a block pacs with host or url into it.")
    if settings.url is not None:
        from site_node.ingest.dicomweb import DicomwebPacs

        return DicomwebPacs(settings)
    from site_node.ingest.dimse import DimsePacs

    return DimsePacs(settings)
