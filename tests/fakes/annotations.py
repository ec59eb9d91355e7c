"""Made-up annotations of made-up series: segmentations as highdicom writes them, structure sets, reports."""

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom
import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, RTStructureSetStorage

from site_node.dicom.quiet import quiet
from tests.fakes.dicom import uid_of

TISSUE = CodedConcept("85756007", "SCT", "Tissue")
KIDNEY = CodedConcept("64033007", "SCT", "Kidney")
NEOPLASM = CodedConcept("108369006", "SCT", "Neoplasm")
FINDING = ("121071", "DCM", "Finding")
WRITTEN_BY_A_SCANNER = {
    **{"StudyDate": "20240101", "StudyTime": "120000", "AccessionNumber": "", "StudyID": "1", "PatientBirthDate": ""},
    **{"ReferringPhysicianName": "", "SliceThickness": "2.5", "PositionReferenceIndicator": "", "InstanceNumber": 1},
}


def segmentation(
    images: Sequence[Dataset],
    marks: NDArray[Any],
    kind: str = "BINARY",
    *,
    segments: Sequence[tuple[str, CodedConcept]] = (("left one", KIDNEY), ("lesion 1", NEOPLASM)),
    omit_empty: bool = True,
    **more: Any,
) -> Dataset:
    """Return a segmentation of a series' slices, or of one image.

    Shapes: marks (slice, row, column), of segment numbers, or (slice, row, column, segment) for overlaps and fractions.
    """
    for image in images:
        for keyword, value in WRITTEN_BY_A_SCANNER.items():
            if keyword not in image:
                setattr(image, keyword, value)
    described = [
        SegmentDescription(number, label, TISSUE, meant, SegmentAlgorithmTypeValues.MANUAL)
        for number, (label, meant) in enumerate(segments, start=1)
    ]
    with quiet():
        made: Dataset = highdicom.seg.Segmentation(
            source_images=list(images),
            pixel_array=marks,
            segmentation_type=SegmentationTypeValues(kind),
            segment_descriptions=described,
            series_instance_uid=uid_of("segmentations"),
            series_number=9,
            sop_instance_uid=uid_of(f"segmentation of {images[0].SOPInstanceUID} {kind}"),
            instance_number=1,
            manufacturer="Made up",
            manufacturer_model_name="Made up",
            software_versions="1",
            device_serial_number="1",
            omit_empty_frames=omit_empty,
            **more,
        )
    return made


def structure_set(
    images: Sequence[Dataset],
    structures: Mapping[str, Sequence[tuple[int, NDArray[np.float64]]]],
    *,
    geometric_type: str = "CLOSED_PLANAR",
    named: bool = True,
) -> Dataset:
    """Return a structure set; a structure is contours, each the number of an image and (point, 3) in LPS mm."""
    dataset = _object(images[0], RTStructureSetStorage, "structures", "RTSTRUCT")
    dataset.StructureSetLabel = "made up"
    reference = Dataset()
    reference.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    study, series = Dataset(), Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = [_reference(image) for image in images]
    study.RTReferencedSeriesSequence = [series]
    reference.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [reference]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(structures.items(), start=1):
        structure, drawn = Dataset(), Dataset()
        structure.ROINumber, structure.ROIName = number, name
        structure.ReferencedFrameOfReferenceUID = images[0].FrameOfReferenceUID
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for image, points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = geometric_type, len(points)
            contour.ContourData = [f"{value:.6g}" for value in np.asarray(points).ravel()]
            if named:
                contour.ContourImageSequence = [_reference(images[image])]
            drawn.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(structure)
        dataset.ROIContourSequence.append(drawn)
    return dataset


def report(
    images: Sequence[Dataset],
    values: Sequence[Dataset],
    *,
    name: str = "report",
    evidence: bool = True,
    completion: str = "COMPLETE",
    replaces: Sequence[Dataset] = (),
) -> Dataset:
    """Return a structured report with these content items below its root."""
    dataset = _object(images[0], ComprehensiveSRStorage, f"report {name}", "SR")
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.CompletionFlag, dataset.VerificationFlag = completion, "UNVERIFIED"
    dataset.ContentSequence = list(values)
    if evidence:
        dataset.CurrentRequestedProcedureEvidenceSequence = [_evidence(images)]
    if replaces:
        dataset.PredecessorDocumentsSequence = [_evidence(replaces)]
    return dataset


def coded(value: tuple[str, str, str], concept: tuple[str, str, str] = FINDING) -> Dataset:
    """Return a content item whose value is a code."""
    item = _item("CODE", concept)
    item.ConceptCodeSequence = [_code(value)]
    return item


def text(value: str, concept: tuple[str, str, str] = FINDING) -> Dataset:
    """Return a content item whose value is text."""
    item = _item("TEXT", concept)
    item.TextValue = value
    return item


def number(value: str, concept: tuple[str, str, str] = FINDING) -> Dataset:
    """Return a content item whose value is a number."""
    item, measured = _item("NUM", concept), Dataset()
    measured.NumericValue = value
    item.MeasuredValueSequence = [measured]
    return item


def container(items: Sequence[Dataset]) -> Dataset:
    """Return a content item that contains others."""
    item = _item("CONTAINER", ("121070", "DCM", "Findings"))
    item.ContentSequence = list(items)
    return item


def _item(kind: str, concept: tuple[str, str, str]) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType, item.ConceptNameCodeSequence = "CONTAINS", kind, [_code(concept)]
    return item


def _code(code: tuple[str, str, str]) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def _evidence(objects: Sequence[Dataset]) -> Dataset:
    study, series = Dataset(), Dataset()
    study.StudyInstanceUID, series.SeriesInstanceUID = objects[0].StudyInstanceUID, objects[0].SeriesInstanceUID
    series.ReferencedSOPSequence = [_reference(one) for one in objects]
    study.ReferencedSeriesSequence = [series]
    return study


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def _object(image: Dataset, sop_class: Any, name: str, modality: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid_of(f"{name} of {image.SOPInstanceUID}")
    dataset.Modality, dataset.PatientID, dataset.PatientName = modality, image.PatientID, "Made^Up"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = image.StudyInstanceUID, uid_of(name)
    return dataset
