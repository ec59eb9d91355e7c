"""Made-up hospitals whose images have masks or numbers: bright boxes, drawn around, or as bright as their number."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.fakes.dicom import SplitOf, make_dataset, save, write_labels
from tests.fakes.series import SPACING, positions_of, saved, series_of

SLICE_STEP_MM = 1.5


def boxed(shape: tuple[int, ...], generator: np.random.Generator) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return noise with a bright box in it, and the box."""
    mask = np.zeros(shape, np.uint8)
    corner = [int(generator.integers(0, edge // 2)) for edge in shape]
    mask[tuple(slice(first, first + edge // 2) for first, edge in zip(corner, shape, strict=True))] = 1
    values = 1000 + generator.normal(0, 30, shape) + 400.0 * mask
    return values.astype(np.int16), mask


def every_third_held_out(patient: int) -> str:
    """Return the split of a patient by number."""
    return "test" if patient % 3 == 0 else "train"


def make_drawn_hospital(
    folder: Path, patients: int = 12, *, images: int = 2, size: int = 16, seed: int = 0, split: SplitOf | None = None
) -> Path:
    """Write pictures, labels.csv without a label, PNG masks and masks.csv; return labels.csv."""
    generator = np.random.default_rng(seed)
    rows, drawn = [], []
    for number in range(patients):
        for image in range(images):
            values, mask = boxed((size, size), generator)
            dataset = make_dataset(values.astype(np.uint16), f"P{number:04d}", f"{seed}-{image}")
            save(dataset, folder / "images" / f"{number}-{image}.dcm")
            (folder / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask * 255).save(folder / "masks" / f"{number}-{image}.png")
            uid = str(dataset.SOPInstanceUID)
            rows.append({"patient_id": f"P{number:04d}", "sop_instance_uid": uid, "split": _split(split, number)})
            drawn.append({"sop_instance_uid": uid, "file": f"masks/{number}-{image}.png"})
    write_labels(folder / "masks.csv", drawn)
    return write_labels(folder / "labels.csv", rows)


def make_drawn_volumes(folder: Path, patients: int = 12, *, seed: int = 0, tilt_degrees: float = 0.0) -> Path:
    """Write CT series, labels.csv, NIfTI masks of the series' geometry and masks.csv; return labels.csv."""
    generator = np.random.default_rng(seed)
    rows, drawn = [], []
    for number in range(patients):
        patient = f"P{number:04d}"
        values, mask = boxed((10, 14, 18), generator)
        positions = positions_of(len(values), SLICE_STEP_MM, tilt_degrees=tilt_degrees)
        slices = series_of(values, positions, patient_id=patient)
        saved(slices, folder / "images" / patient)
        nibabel.save(
            nibabel.Nifti1Image(mask.transpose(2, 1, 0), nifti_affine(positions)), folder / f"{patient}.nii.gz"
        )
        series = str(slices[0].SeriesInstanceUID)
        rows.append({"patient_id": patient, "sop_instance_uid": series, "split": every_third_held_out(number)})
        drawn.append({"series_instance_uid": series, "file": f"{patient}.nii.gz"})
    write_labels(folder / "masks.csv", drawn)
    return write_labels(folder / "labels.csv", rows)


def make_measured_hospital(
    folder: Path, patients: int = 12, *, size: int = 16, seed: int = 0, number_of: Callable[[float], str] = str
) -> Path:
    """Write pictures whose upper half is as bright as the patient's number in column `months`; return labels.csv."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(patients):
        months = float(round(generator.uniform(0, 200), 1))
        values = 100 + generator.normal(0, 5, (size, size))
        values[: size // 2] += months
        values[-1, -1] = 400  # the brightest is the same everywhere, so that scaling keeps the number
        dataset = make_dataset(values.astype(np.uint16), f"P{number:04d}", str(seed))
        save(dataset, folder / "images" / f"{number}.dcm")
        row = {"patient_id": f"P{number:04d}", "sop_instance_uid": str(dataset.SOPInstanceUID)}
        rows.append(row | {"months": number_of(months), "split": every_third_held_out(number)})
    return write_labels(folder / "labels.csv", rows)


def nifti_affine(positions: list[tuple[float, ...]]) -> NDArray[np.float64]:
    """Return the affine to RAS mm of (column, row, slice), of axial slices that lie at these places in LPS mm."""
    affine = np.eye(4)
    affine[0, 0], affine[1, 1] = SPACING[1], SPACING[0]
    affine[:3, 2] = np.subtract(positions[1], positions[0])
    affine[:3, 3] = positions[0]
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, np.float64)


def _split(split: SplitOf | None, number: int) -> str:
    return (split or every_third_held_out)(number)
