"""A made-up hospital: tiny synthetic radiographs as DICOM, with a label that can be learned, and labels.csv.

>>> hospital = make_hospital(folder, patients=12)          # doctest: +SKIP
>>> hospital.labels, len(hospital.rows)                    # doctest: +SKIP
"""

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

SplitOf = Callable[[int], str]


@dataclass(frozen=True)
class FakeHospital:
    """What was written: the folder, its labels.csv, and the rows in it."""

    folder: Path
    labels: Path
    rows: tuple[dict[str, str], ...]


def uid_of(text: str) -> UID:
    """Return a valid UID that is a function of the text."""
    return UID(f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:15], 'big')}")


def make_dataset(pixels: NDArray[Any], patient_id: str = "P1", instance: str = "1", **headers: Any) -> Dataset:
    """Return a DX image; `headers` override or, if None, delete attributes by keyword."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = uid_of(f"{patient_id}/{instance}")
    dataset.StudyInstanceUID = uid_of(f"{patient_id}/study")
    dataset.SeriesInstanceUID = uid_of(f"{patient_id}/series")
    dataset.PatientID, dataset.PatientName = patient_id, "Made^Up"
    dataset.PatientSex, dataset.PatientAge = "F", "050Y"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in headers.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    """Write a dataset as a DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def radiograph(positive: bool, size: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return a noisy picture; a positive one has a bright spot in its lower left."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    picture = 60 + 60 * rows + generator.normal(0, 12, (size, size))
    if positive:
        picture += 110 * np.exp(-((rows - 0.7) ** 2 + (columns - 0.3) ** 2) / 0.02)
    return np.asarray(np.clip(picture, 0, 255), dtype=np.uint8)


def make_hospital(
    folder: Path,
    patients: int = 12,
    *,
    images_per_patient: int = 2,
    size: int = 32,
    seed: int = 0,
    label_column: str = "label",
    positive: Callable[[int], bool] = lambda patient: patient % 2 == 0,
    split: SplitOf | None = None,
    prefix: str = "P",
) -> FakeHospital:
    """Write DICOM files of so many patients and their labels.csv into the folder.

    `positive` and `split` are asked per patient number; without `split` labels.csv has no such column.
    """
    generator = np.random.default_rng(seed)
    rows: list[dict[str, str]] = []
    for number in range(patients):
        patient_id = f"{prefix}{number:04d}"
        sex, age, view = "FM"[number // 2 % 2], 20 + number % 60, ("PA", "AP")[number % 2]
        for image in range(images_per_patient):
            pixels = radiograph(positive(number), size, generator)
            headers = {"PatientSex": sex, "PatientAge": f"{age:03d}Y", "ViewPosition": view}
            dataset = make_dataset(pixels, patient_id, f"{seed}-{image}", **headers)
            path = save(dataset, folder / patient_id / f"{image}.dcm")
            row = {"patient_id": patient_id, "sop_instance_uid": str(dataset.SOPInstanceUID)}
            row |= {"file": path.relative_to(folder).as_posix(), label_column: str(int(positive(number)))}
            row |= {"view": view, "sex": sex, "age": str(age)}
            rows.append(row | ({"split": split(number)} if split else {}))
    return FakeHospital(folder, write_labels(folder / "labels.csv", rows), tuple(rows))


def write_labels(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows as CSV; the first row's keys are the columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
