"""Made-up series: slices of a small body of known values, as files, in any geometry that a scanner writes."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from tests.fakes.dicom import FakeHospital, make_dataset, save, uid_of, write_labels

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
ORIGIN = (-10.0, -20.0, 30.0)
SPACING = (0.8, 0.5)
"""mm between rows, and between columns."""


def body(slices: int = 4, rows: int = 6, columns: int = 5) -> NDArray[np.int16]:
    """Return values that name their place: 100 * slice + 10 * row + column."""
    places = np.indices((slices, rows, columns))
    return np.asarray(100 * places[0] + 10 * places[1] + places[2], np.int16)


def positions_of(
    count: int,
    step_mm: float = 2.5,
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = ORIGIN,
    tilt_degrees: float = 0.0,
) -> list[tuple[float, ...]]:
    """Return where so many slices lie: along their normal, or, as with a tilted gantry, aslant."""
    normal = np.cross(orientation[:3], orientation[3:])
    sideways = math.tan(math.radians(tilt_degrees)) * np.array(orientation[3:])
    places = [np.array(origin) + number * step_mm * (normal + sideways) for number in range(count)]
    return [tuple(float(round(part, 6)) for part in place) for place in places]


def slice_of(
    pixels: NDArray[Any],
    position: Sequence[float],
    instance: str,
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = SPACING,
    patient_id: str = "P1",
    series: str = "series",
    **headers: Any,
) -> Dataset:
    """Return one CT slice: stored values that stand for HU + 1024."""
    said: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "Modality": "CT",
        "ViewPosition": None,
        "SeriesInstanceUID": uid_of(f"{patient_id}/{series}"),
        "FrameOfReferenceUID": uid_of(f"{patient_id}/frame"),
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImageOrientationPatient": list(orientation),
        "ImagePositionPatient": list(position),
        "PixelSpacing": list(spacing),
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
    }
    return make_dataset(pixels, patient_id, f"{series}/{instance}", **(said | headers))


def series_of(values: NDArray[Any], positions: Iterable[Sequence[float]], **headers: Any) -> list[Dataset]:
    """Return the slices of a series; InstanceNumber runs against the geometry, as some scanners have it."""
    count = len(values)
    return [
        slice_of(pixels, position, str(number), InstanceNumber=count - number, **headers)
        for number, (pixels, position) in enumerate(zip(values, positions, strict=True))
    ]


def saved(slices: Iterable[Dataset], folder: Path) -> list[Path]:
    """Write slices as files whose names say nothing of their order."""
    paths = [save(dataset, folder / f"{str(dataset.SOPInstanceUID)[-9:]}-{n}.dcm") for n, dataset in enumerate(slices)]
    return sorted(paths)


def enhanced(values: NDArray[Any], positions: Sequence[Sequence[float]], slopes: Sequence[float] = ()) -> Dataset:
    """Return one enhanced image of all slices, with geometry and rescale in functional groups."""
    dataset = make_dataset(values[0], NumberOfFrames=len(values), Modality="CT", ViewPosition=None)
    dataset.PixelData = values.tobytes()
    dataset.FrameOfReferenceUID = uid_of("frame")
    shared, groups = Dataset(), []
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = list(SPACING)
    for number, position in enumerate(positions):
        group, place, transformation = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = list(position)
        transformation.RescaleSlope = slopes[number] if slopes else 1
        transformation.RescaleIntercept, transformation.RescaleType = -1024, "HU"
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [place], [transformation]
        groups.append(group)
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], groups
    return dataset


def make_volume_hospital(
    folder: Path, patients: int = 6, *, by_slice: bool = False, tilt_degrees: float = 0.0
) -> FakeHospital:
    """Write a CT series of 5 slices of each patient, a bright ball in positive ones; rows name series or slices."""
    rows: list[dict[str, str]] = []
    places = np.indices((5, 16, 16)) - np.array([2, 8, 8]).reshape(3, 1, 1, 1)
    ball = np.exp(-(4 * places[0] ** 2 + places[1] ** 2 + places[2] ** 2) / 20)
    for number in range(patients):
        positive = number % 2 == 1
        noise = np.random.default_rng(number).normal(0, 10, ball.shape)
        values = np.asarray(1000 + noise + 600 * ball * positive, np.int16)
        patient = f"V{number:04d}"
        slices = series_of(values, positions_of(5, 3.0, tilt_degrees=tilt_degrees), patient_id=patient)
        saved(slices, folder / patient)
        named = slices[1].SOPInstanceUID if by_slice else slices[1].SeriesInstanceUID
        split = ("train", "validation", "test")[number // 2 % 3]
        row = {"patient_id": patient, "sop_instance_uid": str(named), "label": str(int(positive)), "split": split}
        rows.append(row)
    return FakeHospital(folder, write_labels(folder / "labels.csv", rows), tuple(rows))
