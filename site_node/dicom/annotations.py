"""What a segmentation, a radiotherapy structure set or a structured report was made of: whose, and of which images.

Such objects are no images of a study: they label images. The index keeps what this file reads of each header.
Source: DICOM PS3.3 C.8.20.2 (Segmentation), C.8.8.5 (Structure Set), C.17.2 (SR Document General), C.7.4.1 (Frame of
Reference), 10.3 and C.12.4.2 (references to instances).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from site_node.dicom.deflated import check_inflated_size
from site_node.dicom.headers import PREAMBLE_BYTES, is_dicom
from site_node.dicom.quiet import quiet
from site_node.errors import UnreadableError

AnnotationKind = Literal["seg", "rtstruct", "sr"]

SEGMENTATION_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
"""Segmentation Storage, and Label Map Segmentation Storage."""
STRUCTURE_SET_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
REPORT_CLASSES = "1.2.840.10008.5.1.4.1.1.88."
NO_REPORTS = frozenset({"1.2.840.10008.5.1.4.1.1.88.59"})
"""Key Object Selection: of the reports' family by its number, and says nothing of a finding."""
MOST_ANNOTATION_BYTES = 1 << 30
READ = (
    *("SOPClassUID", "SOPInstanceUID", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"),
    *("ReferencedSeriesSequence", "SourceImageSequence", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence", "ReferencedFrameOfReferenceSequence"),
    *("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"),
)


@dataclass(frozen=True)
class AnnotationHeader:
    """Whose an annotation is, and the series and instances that it was made of, as far as it names them.

    The identifiers never leave the hospital.
    """

    kind: AnnotationKind
    sop_instance_uid: str
    patient_id: str | None
    study_instance_uid: str | None
    frame_of_reference_uid: str | None
    series: tuple[str, ...]
    instances: tuple[str, ...]


def annotation_kind(sop_class_uid: str | None) -> AnnotationKind | None:
    """Return what kind of annotation a SOP class is, or None if it is none."""
    uid = sop_class_uid or ""
    if uid in SEGMENTATION_CLASSES:
        return "seg"
    if uid == STRUCTURE_SET_CLASS:
        return "rtstruct"
    return "sr" if uid.startswith(REPORT_CLASSES) and uid not in NO_REPORTS else None


def read_annotation(path: Path) -> AnnotationHeader | None:
    """Read an annotation's header; None if the file is none, or is too damaged to tell. Never raises."""
    try:
        if path.stat().st_size > MOST_ANNOTATION_BYTES:
            return None
        with path.open("rb") as file, quiet():
            if not is_dicom(file.read(PREAMBLE_BYTES + 4)):
                return None
            check_inflated_size(file)
            file.seek(0)
            return _annotation(pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(READ)))
    except (OSError, UnreadableError):
        return None
    except Exception:  # as damaged as it can be
        return None


def _annotation(dataset: Dataset) -> AnnotationHeader | None:
    kind = annotation_kind(str(UID(str(dataset.get("SOPClassUID") or ""))))
    if kind is None or not dataset.get("SOPInstanceUID"):
        return None
    series, instances = _references(dataset)
    return AnnotationHeader(
        kind=kind,
        sop_instance_uid=str(dataset.SOPInstanceUID).strip(),
        patient_id=str(dataset.get("PatientID") or "").strip() or None,
        study_instance_uid=str(dataset.get("StudyInstanceUID") or "") or None,
        frame_of_reference_uid=_frame_of_reference(dataset),
        series=tuple(dict.fromkeys(series)),
        instances=tuple(dict.fromkeys(instances)),
    )


def _frame_of_reference(dataset: Dataset) -> str | None:
    if dataset.get("FrameOfReferenceUID"):
        return str(dataset.FrameOfReferenceUID)
    named = [str(one.get("FrameOfReferenceUID")) for one in dataset.get("ReferencedFrameOfReferenceSequence") or ()]
    return named[0] if len(named) == 1 else None  # a structure set may have several


def _references(dataset: Dataset) -> tuple[list[str], list[str]]:
    series, instances = list[str](), list[str]()
    for item in _series_items(dataset):
        if item.get("SeriesInstanceUID"):
            series.append(str(item.SeriesInstanceUID))
        for name in ("ReferencedInstanceSequence", "ContourImageSequence", "ReferencedSOPSequence"):
            instances += _instances(item.get(name) or ())
    instances += _instances(dataset.get("SourceImageSequence") or ())
    shared, frames = (dataset.get(f"{which}FunctionalGroupsSequence") or () for which in ("Shared", "PerFrame"))
    for group in (*shared, *frames):
        for derivation in group.get("DerivationImageSequence") or ():
            instances += _instances(derivation.get("SourceImageSequence") or ())
    return series, instances


def _series_items(dataset: Dataset) -> Iterator[Dataset]:
    yield from dataset.get("ReferencedSeriesSequence") or ()
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            yield from study.get("RTReferencedSeriesSequence") or ()
    for name in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in dataset.get(name) or ():
            yield from study.get("ReferencedSeriesSequence") or ()


def _instances(items: Iterable[Dataset]) -> Iterator[str]:
    return (str(item.ReferencedSOPInstanceUID) for item in items if item.get("ReferencedSOPInstanceUID"))
