"""The two open data sets of `segmentation.py` as hospitals have them: DICOM, labels.csv, masks.csv.

LGG: the hospitals' own slices; the masks (PNG) are named where they lie. Hippocampus: NIfTI volumes of one source,
written as DICOM slices with their place in the patient and dealt to four made-up hospitals of uneven size; the masks
stay NIfTI. Both are read from DATA; nothing of them is kept.
"""

import csv
import hashlib
import os
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

Folders = dict[str, Path]
PARTS = {"north": 0.4, "east": 0.3, "south": 0.2, "west": 0.1}
TEST, VALIDATION = 0.25, 0.15
LARGEST = 65535


def lgg(data: Path, folder: Path) -> Folders:
    """Lay out the brain slices: one folder for each hospital."""
    return {source.name.lower(): _lgg_hospital(source, folder / source.name.lower()) for source in _folders(data)}


def lgg_slices(data: Path, folder: Path) -> Folders:
    """Lay out the brain slices to classify: each slice of a held-out patient is a patient of its own.

    Every patient of this collection has a tumour, so that only slices can be told apart; those that are trained on
    stay their patients'.
    """
    folders = lgg(data, folder)
    for hospital in folders.values():
        with (hospital / "labels.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        held_out = {row["sop_instance_uid"]: row for row in rows if row["split"] != "train"}
        for path in sorted((hospital / "images").rglob("*.dcm")):
            dataset = dcmread(path)
            row = held_out.get(str(dataset.SOPInstanceUID))
            if row is not None:
                row["patient_id"] = dataset.PatientID = f"{row['patient_id']}.{path.stem}"
                path.unlink()  # it is a second name of the source's file
                dataset.save_as(path)
        _write(hospital / "labels.csv", list(rows[0]), [list(row.values()) for row in rows])
    return folders


def hippocampus(data: Path, folder: Path) -> Folders:
    """Write the volumes as DICOM and deal them to hospitals."""
    with (data / "labels.csv").open(encoding="utf-8", newline="") as file:
        patients = sorted((row["patient_id"], row["file"], row["label_file"]) for row in csv.DictReader(file))
    patients.sort(key=lambda patient: _hash(patient[0]))
    folders, first = dict[str, Path](), 0
    for name, part in PARTS.items():
        number = round(part * len(patients))
        own, first = patients[first : first + number], first + number
        folders[name] = _hippocampus_hospital(data, own, folder / name)
    return folders


def only(source: Path, folder: Path, splits: set[str]) -> Path:
    """Lay out the patients of some splits alone."""
    with (source / "labels.csv").open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        rows, columns = list(table), list(table.fieldnames or ())
    kept = [row for row in rows if row["split"] in splits]
    _write(folder / "labels.csv", columns, [list(row.values()) for row in kept])
    if (source / "masks.csv").exists():
        (folder / "masks.csv").write_bytes((source / "masks.csv").read_bytes())
    for patient in sorted({row["patient_id"].partition(".")[0] for row in kept}):  # without a slice's number
        _link_images(source / "images" / patient, folder / "images" / patient)
    return folder


def joined(folders: Folders, folder: Path) -> Path:
    """Lay out all hospitals' patients as one hospital's."""
    folder.mkdir(parents=True)
    for table in ("labels.csv", "masks.csv"):
        texts = [(source / table).read_text(encoding="utf-8").splitlines() for source in folders.values()]
        lines = [texts[0][0], *(line for text in texts for line in text[1:])]
        (folder / table).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, source in folders.items():
        _link_images(source / "images", folder / "images" / name)
    return folder


def _folders(data: Path) -> list[Path]:
    return sorted(entry for entry in data.iterdir() if (entry / "labels.csv").exists())


def _lgg_hospital(source: Path, folder: Path) -> Path:
    _link_images(source / "images", folder / "images")
    with (source / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["patient_id", "sop_instance_uid", "split", "label"]
    _write(folder / "labels.csv", columns, [[row[column] for column in columns] for row in rows])
    drawn = [[row["sop_instance_uid"], str((source / row["mask"]).resolve())] for row in rows]
    _write(folder / "masks.csv", ["sop_instance_uid", "file"], drawn)
    return folder


def _hippocampus_hospital(data: Path, patients: list[tuple[str, str, str]], folder: Path) -> Path:
    labels, drawn = [], []
    for patient, image, mask in patients:
        series = _uid(patient, "series")
        _write_series(nibabel.load(data / image), patient, folder / "images" / patient)
        part = int(_hash(patient + "split")[:8], 16) / 2**32
        split = "test" if part < TEST else "validation" if part < TEST + VALIDATION else "train"
        labels.append([patient, series, split])
        drawn.append([series, str((data / mask).resolve())])
    _write(folder / "labels.csv", ["patient_id", "sop_instance_uid", "split"], labels)
    _write(folder / "masks.csv", ["series_instance_uid", "file"], drawn)
    return folder


def _write_series(image: nibabel.Nifti1Image, patient: str, folder: Path) -> None:
    """Write a volume (i, j, k) as slices along k: i counts columns and j rows; NIfTI's RAS becomes DICOM's LPS."""
    folder.mkdir(parents=True)
    values = np.asarray(image.dataobj, np.float64)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(image.affine, np.float64)
    slope = float(max(values.max(), 1.0)) / LARGEST
    for number in range(values.shape[2]):
        dataset = _slice(patient, number, lps)
        pixels: NDArray[np.uint16] = np.clip(np.rint(values[:, :, number].T / slope), 0, LARGEST).astype(np.uint16)
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{slope:.10g}", "0"
        dataset.PixelData = pixels.tobytes()
        dataset.save_as(folder / f"{number:03}.dcm", enforce_file_format=True)


def _slice(patient: str, number: int, lps: NDArray[np.float64]) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, _uid(patient, str(number))
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID, dataset.Modality, dataset.InstanceNumber = patient, "MR", number + 1
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid(patient, "study"), _uid(patient, "series")
    dataset.FrameOfReferenceUID = _uid(patient, "frame")
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    position = lps[:3] @ [0, 0, number, 1]
    directions = [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]
    dataset.ImagePositionPatient = [f"{value:.8g}" for value in position]
    dataset.ImageOrientationPatient = [f"{value:.8g}" for value in directions]
    dataset.PixelSpacing, dataset.SliceThickness = [f"{spacing[1]:.8g}", f"{spacing[0]:.8g}"], f"{spacing[2]:.8g}"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    return dataset


def _write(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def _link_images(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*.dcm")):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, place)
        except OSError:  # another file system
            place.write_bytes(path.read_bytes())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _uid(patient: str, what: str) -> str:
    return f"2.25.{int(_hash(f'{patient}/{what}')[:31], 16)}"
