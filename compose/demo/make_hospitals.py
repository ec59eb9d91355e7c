"""Make the demo's three hospitals from the chest radiographs of the NIH Clinical Center.

The source is a folder with labels.csv (a row for each image: patient, split, pneumonia, view, sex, age) and the DICOM
files that it names. Patients are dealt to three uneven hospitals, whole and within their split, by a fixed shuffle; so
the hospitals are made, while patients, splits and labels are the source's. Pixels are compressed without loss, in the
one transfer syntax that makes all files together smallest. See ATTRIBUTION.md.

    python -m compose.demo.make_hospitals SOURCE TARGET
"""

import argparse
import csv
import io
import random
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pydicom
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless

TRAINING_PATIENTS = {"st-anna": 167, "harbour": 100, "northfield": 67}
SYNTAXES = (JPEGLSLossless, JPEG2000Lossless, RLELossless)
COLUMNS = ("patient_id", "sop_instance_uid", "file", "pneumonia", "split", "view", "sex", "age")
SHUFFLE_SEED = 2017

Row = dict[str, str]


def main() -> None:
    """Read the arguments and make the hospitals."""
    parser = argparse.ArgumentParser(description="Make the demo's hospitals.")
    parser.add_argument("source", type=Path, help="folder with labels.csv and the images that it names")
    parser.add_argument("target", type=Path, help="folder to hold one folder for each hospital")
    arguments = parser.parse_args()
    with (arguments.source / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    syntax = smallest_syntax([arguments.source / row["file"] for row in rows])
    for hospital, own in deal(rows).items():
        written = write_hospital(arguments.source, arguments.target / hospital, own, syntax)
        patients = len({row["patient_id"] for row in own})
        sys.stdout.write(f"{hospital}: {patients} patients, {len(own)} images, {written} bytes as {syntax.name}\n")


def deal(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Give each patient to one hospital, each split in about the proportion of the training patients."""
    patients: defaultdict[str, list[str]] = defaultdict(list)
    for split, patient in sorted({(row["split"], row["patient_id"]) for row in rows}):
        patients[split].append(patient)
    owner: dict[str, str] = {}
    for split, members in sorted(patients.items()):
        random.Random(f"{SHUFFLE_SEED} {split}").shuffle(members)  # noqa: S311 - reproducible dealing, no secret
        start = 0
        for hospital, number in shares(len(members)).items():
            owner |= dict.fromkeys(members[start : start + number], hospital)
            start += number
    return {hospital: [row for row in rows if owner[row["patient_id"]] == hospital] for hospital in TRAINING_PATIENTS}


def shares(patients: int) -> dict[str, int]:
    """Divide so many patients in the proportion of TRAINING_PATIENTS, whole, by largest remainder."""
    total = sum(TRAINING_PATIENTS.values())
    exact = {hospital: patients * number / total for hospital, number in TRAINING_PATIENTS.items()}
    found = {hospital: int(number) for hospital, number in exact.items()}
    by_remainder = sorted(exact, key=lambda hospital: found[hospital] - exact[hospital])
    for hospital in by_remainder[: patients - sum(found.values())]:
        found[hospital] += 1
    return found


def smallest_syntax(files: Sequence[Path]) -> UID:
    """Return the lossless transfer syntax in which the files are smallest together."""
    return min(SYNTAXES, key=lambda syntax: sum(len(compressed(file, syntax)) for file in files))


def compressed(file: Path, syntax: UID) -> bytes:
    """Return the DICOM file with its pixels compressed; nothing else is changed, the SOP instance UID stays.

    Source: PS3.3 C.7.6.1.1.3: a lossless compression makes no new instance.
    """
    dataset = pydicom.dcmread(file)
    dataset.compress(syntax, generate_instance_uid=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_hospital(source: Path, target: Path, rows: Sequence[Row], syntax: UID) -> int:
    """Write a hospital's images, a folder for each patient, and its labels.csv; return the bytes written."""
    written = 0
    labels: list[Mapping[str, str]] = []
    for row in rows:
        name = f"images/{row['patient_id']}/{Path(row['file']).name}"
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written += path.write_bytes(compressed(source / row["file"], syntax))
        age = f"{float(row['age']):g}" if row["age"] else ""
        labels.append({column: row[column] for column in COLUMNS} | {"file": name, "age": age})
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(labels)
    return written + (target / "labels.csv").write_bytes(table.getvalue().encode("utf-8"))


if __name__ == "__main__":
    main()
