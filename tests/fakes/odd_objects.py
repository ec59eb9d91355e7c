"""A small set of odd DICOM files, made here: what scanners really send, and what no modality should.

>>> objects = make_odd_objects(folder)                     # doctest: +SKIP
>>> objects.good, objects.damaged, objects.no_dicom        # doctest: +SKIP
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    RLELossless,
)

from tests.fakes.dicom import make_dataset, save

RETIRED_CLASS = UID("1.2.840.10008.5.1.4.1.1.6")  # Ultrasound Image Storage (retired)
PRIVATE_CLASS = UID("1.3.12.2.1107.5.9.1")  # a manufacturer's own objects
PIXELS = np.arange(32 * 24, dtype=np.uint16).reshape(32, 24)


@dataclass(frozen=True)
class OddObjects:
    """Files by what they are: `good` ones a listener takes, `damaged` ones it must not, and no DICOM at all."""

    good: dict[str, Path]
    damaged: dict[str, Path]
    no_dicom: Path


def make_odd_objects(folder: Path) -> OddObjects:
    """Write the set."""
    made = {name: save(dataset, folder / f"{name}.dcm") for name, dataset in _good().items()}
    whole = made["explicit"].read_bytes()
    cut = folder / "cut_short.dcm"
    cut.write_bytes(whole[:-100])
    text = folder / "notes.dcm"
    text.write_bytes(b"these are no images")
    return OddObjects(made, {"cut short": cut}, text)


def _good() -> dict[str, Dataset]:
    names = ("explicit", "implicit", "big_endian", "deflated", "rle", "jpeg_ls", "unicode", "retired", "private")
    made = {name: make_dataset(PIXELS, "P1", name) for name in names}
    for name, syntax in (("implicit", ImplicitVRLittleEndian), ("deflated", DeflatedExplicitVRLittleEndian)):
        made[name].file_meta.TransferSyntaxUID = syntax
    _swap(made["big_endian"])
    made["rle"].compress(RLELossless, generate_instance_uid=False)
    made["jpeg_ls"].compress(JPEGLSLossless, generate_instance_uid=False)
    made["unicode"].SpecificCharacterSet, made["unicode"].PatientName = "ISO_IR 192", "Вася^王小明=Ü"
    made["retired"].SOPClassUID, made["private"].SOPClassUID = RETIRED_CLASS, PRIVATE_CLASS
    frames = make_dataset(np.zeros((8, 8), dtype=np.uint8), "P2", "frames", NumberOfFrames=3)
    frames.SOPClassUID = MultiFrameGrayscaleByteSecondaryCaptureImageStorage
    frames.PixelData = bytes(8 * 8 * 3)
    return made | {"frames": frames, "report": _report(), "empty_patient": _without_patient()}


def _swap(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = PIXELS.astype(">u2").tobytes()


def _report() -> Dataset:
    report = make_dataset(PIXELS, "P3", "report")
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(report, keyword)
    report.SOPClassUID, report.Modality = BasicTextSRStorage, "SR"
    return report


def _without_patient() -> Dataset:
    return make_dataset(PIXELS, "P4", "nobody", PatientID="", PatientName=None)
