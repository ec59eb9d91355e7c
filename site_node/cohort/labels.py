"""Read a site's labels.csv: which instance has which label, and which split the site wants for a patient.

Columns: `patient_id`, `sop_instance_uid`, the label column that the study names, optionally `split` (train, validation
or test; overrides the keyed hash). All other columns are kept (`LabelRow.others`): view, sex and age stand in where a
header has none.
What stands in the label columns is read by `label_columns.py`. Nothing of this file leaves the hospital.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from protocol.label import Label
from protocol.study_parts import Split
from site_node.cohort.csv_file import PATIENT_COLUMN, SPLIT_COLUMN, SPLIT_WORDS, read_records
from site_node.cohort.findings import Findings
from site_node.cohort.label_columns import Said, columns_of, is_missing, said_in

INSTANCE_COLUMN = "sop_instance_uid"
IF_UNREADABLE = "Put a labels.csv beside the images, or name it in site.yaml (labels)."

NO_INSTANCE = "label: the row lacks a patient id or a SOP instance UID"
NO_VALUE = "label: the row has no value in the study's label column"
FOREIGN_VALUE = "label: the value is none of the study's classes"
FOREIGN_SPLIT = "label: the split is none of train, validation, test"
CONTRADICTION = "image: its labels contradict each other"


Records = Callable[[Sequence[str]], Iterable[dict[str, str]]]
"""Yields a record for each labelled instance, with the columns asked for beside its patient and its UID."""

SaidOf = Callable[[Mapping[str, str]], Said | str]
"""Reads what a record says in the label columns, or why its row falls out."""


@dataclass(frozen=True)
class LabelRow:
    """One instance's row; `split` is None where the site leaves it to the hash, `value` is of regression alone."""

    patient_id: str
    sop_instance_uid: str
    label: int
    split: Split | None
    others: Mapping[str, str] = field(default_factory=dict, compare=False)
    findings: Findings = ()
    value: float | None = None


@dataclass(frozen=True)
class Labels:
    """The usable rows by SOP instance UID, and how many rows fell out for which reason.

    `mentioned` holds the SOP instance UIDs of all rows, usable or not.
    """

    rows: Mapping[str, LabelRow]
    dropped: Mapping[str, int]
    mentioned: frozenset[str]


def records_of(path: Path) -> Records:
    """Return the records of a labels.csv that names patient and instance."""
    return lambda columns: read_records(path, (PATIENT_COLUMN, INSTANCE_COLUMN, *columns), IF_UNREADABLE)


def read_labels(path: Path, label: Label, records: Records | None = None) -> Labels:
    """Read labels.csv for a study's label, or `records` of the same columns (`label_records.py`).

    Raises: LabelsError if the file is missing, is no such table, or lacks a column. Faulty rows fall out, counted.
    """
    return labels_of(records or records_of(path), columns_of(label), partial(_said, label))


def labels_of(records: Records, columns: Sequence[str], said_of: SaidOf) -> Labels:
    """Return the usable rows, with what `said_of` reads in their label columns. Faulty rows fall out, counted."""
    dropped: Counter[str] = Counter()
    rows: dict[str, LabelRow] = {}
    contradicting: set[str] = set()
    mentioned: set[str] = set()
    for record in records(columns):
        mentioned.add(record[INSTANCE_COLUMN])
        row = _row(record, columns, said_of)
        if isinstance(row, str):
            dropped[row] += 1
        elif rows.setdefault(row.sop_instance_uid, row) != row:
            contradicting.add(row.sop_instance_uid)
    for instance in contradicting:
        del rows[instance]
    if contradicting:
        dropped[CONTRADICTION] = len(contradicting)
    return Labels(rows, dict(dropped), frozenset(mentioned - {""}))


def _said(label: Label, record: Mapping[str, str]) -> Said | str:
    if is_missing(record, label):
        return NO_VALUE
    said = said_in(record, label)
    return FOREIGN_VALUE if said is None else said


def _row(record: Mapping[str, str], columns: Sequence[str], said_of: SaidOf) -> LabelRow | str:
    patient, instance = record[PATIENT_COLUMN], record[INSTANCE_COLUMN]
    if not patient or not instance:
        return NO_INSTANCE
    said = said_of(record)
    if isinstance(said, str):
        return said
    word = record.get(SPLIT_COLUMN, "").casefold()
    if word and word not in SPLIT_WORDS:
        return FOREIGN_SPLIT
    ours = (PATIENT_COLUMN, INSTANCE_COLUMN, SPLIT_COLUMN, *columns)
    others = {name: value for name, value in record.items() if name not in ours}
    return LabelRow(patient, instance, said.label, SPLIT_WORDS.get(word), others, said.findings, said.value)
