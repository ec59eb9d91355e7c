"""Read a site's labels.csv: which instance has which label, and which split the site wants for a patient.

Columns: `patient_id`, `sop_instance_uid`, the label column that the study names, optionally `split` (train, validation
or test; overrides the keyed hash). All other columns are kept (`LabelRow.others`): view, sex and age stand in where a
header has none. Spreadsheets write semicolons and byte order marks; both are understood.
A label is a class number (0, 1, ...) or a class name of the study. Nothing of this file leaves the hospital.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from protocol.study_parts import Label, Split
from site_node.errors import LabelsError

PATIENT_COLUMN, INSTANCE_COLUMN, SPLIT_COLUMN = "patient_id", "sop_instance_uid", "split"
SPLITS: tuple[Split, ...] = get_args(Split)
SPLIT_WORDS: Mapping[str, Split] = {
    **{split: split for split in SPLITS},
    **{"training": "train", "val": "validation", "valid": "validation", "testing": "test"},
}
MAX_LABELS_BYTES = 512 << 20

NO_INSTANCE = "label: the row lacks a patient id or a SOP instance UID"
NO_VALUE = "label: the row has no value in the study's label column"
FOREIGN_VALUE = "label: the value is none of the study's classes"
FOREIGN_SPLIT = "label: the split is none of train, validation, test"
CONTRADICTION = "label: several rows of one instance contradict each other"


@dataclass(frozen=True)
class LabelRow:
    """One instance's row; `split` is None where the site leaves it to the hash."""

    patient_id: str
    sop_instance_uid: str
    label: int
    split: Split | None
    others: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Labels:
    """The usable rows by SOP instance UID, and how many rows fell out for which reason.

    `mentioned` holds the SOP instance UIDs of all rows, usable or not.
    """

    rows: Mapping[str, LabelRow]
    dropped: Mapping[str, int]
    mentioned: frozenset[str]


def read_labels(path: Path, label: Label) -> Labels:
    """Read labels.csv for a study's label.

    Raises: LabelsError if the file is missing, is no such table, or lacks a column. Faulty rows fall out, counted.
    """
    dropped: Counter[str] = Counter()
    rows: dict[str, LabelRow] = {}
    contradicting: set[str] = set()
    mentioned: set[str] = set()
    classes = {name.strip().casefold(): number for number, name in enumerate(label.classes)}
    for record in _records(path, label.column):
        mentioned.add(record[INSTANCE_COLUMN])
        row = _row(record, label.column, classes)
        if isinstance(row, str):
            dropped[row] += 1
        elif rows.setdefault(row.sop_instance_uid, row) != row:
            contradicting.add(row.sop_instance_uid)
    for instance in contradicting:
        del rows[instance]
    if contradicting:
        dropped[CONTRADICTION] = len(contradicting)
    return Labels(rows, dict(dropped), frozenset(mentioned - {""}))


def _records(path: Path, label_column: str) -> Iterator[dict[str, str]]:
    text = _text(path)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="", restval="")
    try:
        columns = [(name or "").strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        needed = dict.fromkeys((PATIENT_COLUMN, INSTANCE_COLUMN, label_column))
        missing = [f"'{column}'" for column in needed if column not in columns]
        if missing:  # never what is there instead: without a header line that is a patient's row
            raise LabelsError(
                f"{path.name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}.",
                "Its first line must name the columns. Add or rename; the study names its label's column.",
            )
        for record in reader:
            yield {name: value.strip() for name, value in record.items() if name and isinstance(value, str)}
    except csv.Error:
        raise LabelsError(
            f"{path.name} is not a table of comma-separated values (line {reader.line_num}).", "Save it as CSV, UTF-8."
        ) from None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_LABELS_BYTES:
            raise LabelsError(f"{path.name} is larger than {MAX_LABELS_BYTES} bytes.", "Is it the right file?")
        data = path.read_bytes()
    except OSError as error:
        raise LabelsError(
            f"The labels {path} cannot be read: {(error.strerror or 'input error').lower()}.",
            "Put a labels.csv beside the images, or name it in site.yaml (labels).",
        ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # what old spreadsheets write; our own columns are ASCII either way


def _row(record: Mapping[str, str], label_column: str, classes: Mapping[str, int]) -> LabelRow | str:
    patient, instance = record[PATIENT_COLUMN], record[INSTANCE_COLUMN]
    if not patient or not instance:
        return NO_INSTANCE
    if not record[label_column]:
        return NO_VALUE
    label = _class_number(record[label_column], classes)
    if label is None:
        return FOREIGN_VALUE
    word = record.get(SPLIT_COLUMN, "").casefold()
    if word and word not in SPLIT_WORDS:
        return FOREIGN_SPLIT
    ours = (PATIENT_COLUMN, INSTANCE_COLUMN, SPLIT_COLUMN, label_column)
    others = {name: value for name, value in record.items() if name not in ours}
    return LabelRow(patient, instance, label, SPLIT_WORDS.get(word), others)


def _class_number(text: str, classes: Mapping[str, int]) -> int | None:
    named = classes.get(text.casefold())
    if named is not None:
        return named
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() and 0 <= number < len(classes) else None
