"""A made-up hospital whose masks are DICOM Segmentations among its images; its labels.csv names patients alone."""

from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset

from tests.fakes.annotations import NEOPLASM, segmentation
from tests.fakes.dicom import save, write_labels
from tests.fakes.drawn_hospital import every_third_held_out, make_drawn_volumes


def make_segmented_volumes(folder: Path, patients: int = 12, *, seed: int = 0, label: str = "box") -> Path:
    """Write the volumes of `make_drawn_volumes` with segmentations in place of files; return labels.csv."""
    labels = make_drawn_volumes(folder, patients, seed=seed)
    (folder / "masks.csv").unlink()
    for number in range(patients):
        patient = f"P{number:04d}"
        drawn = nibabel.load(folder / f"{patient}.nii.gz")
        marks = np.asarray(drawn.dataobj, np.uint8).transpose(2, 1, 0)
        slices = slices_of(folder / "images" / patient)
        save(segmentation(slices, marks, segments=[(label, NEOPLASM)]), folder / "images" / patient / "seg.dcm")
        (folder / f"{patient}.nii.gz").unlink()
    rows = [{"patient_id": f"P{number:04d}", "split": every_third_held_out(number)} for number in range(patients)]
    return write_labels(labels, rows)


def slices_of(folder: Path) -> list[Dataset]:
    """Return a series' slices as they lie."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    return sorted(slices, key=lambda one: float(one.ImagePositionPatient[2]))
