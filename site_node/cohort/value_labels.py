"""labels.csv of studies that learn no class: which images take part, whose they are, and of regression their numbers.

A segmentation study reads patient, instance and split alone: what is learnt lies in the masks (`masks.py`). In a
regression study the label column holds a number of the study's range.
"""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from protocol.study import StudySpec
from site_node.cohort.csv_file import PATIENT_COLUMN, SPLIT_COLUMN, SPLIT_WORDS
from site_node.cohort.labels import (
    CONTRADICTION,
    FOREIGN_SPLIT,
    INSTANCE_COLUMN,
    NO_INSTANCE,
    NO_VALUE,
    LabelRow,
    Labels,
    Records,
    records_of,
)

NO_NUMBER = "label: the value is no number"
OUT_OF_RANGE = "label: the number is outside the study's range"


def read_value_labels(path: Path, study: StudySpec, records: Records | None = None) -> Labels:
    """Read labels.csv, or `records`, for a segmentation or regression study; every row has class 0.

    Raises: LabelsError if the file is missing, is no such table, or lacks a column. Faulty rows fall out, counted.
    """
    dropped: Counter[str] = Counter()
    rows: dict[str, LabelRow] = {}
    contradicting: set[str] = set()
    mentioned: set[str] = set()
    column = [study.label.column] if study.kind == "regression" else []
    for record in (records or records_of(path))(column):
        mentioned.add(record[INSTANCE_COLUMN])
        row = _row(record, study)
        if isinstance(row, str):
            dropped[row] += 1
        elif rows.setdefault(row.sop_instance_uid, row) != row:
            contradicting.add(row.sop_instance_uid)
    for instance in contradicting:
        del rows[instance]
    if contradicting:
        dropped[CONTRADICTION] = len(contradicting)
    return Labels(rows, dict(dropped), frozenset(mentioned - {""}))


def _row(record: Mapping[str, str], study: StudySpec) -> LabelRow | str:
    patient, instance = record[PATIENT_COLUMN], record[INSTANCE_COLUMN]
    if not patient or not instance:
        return NO_INSTANCE
    value = _number(record[study.label.column], study) if study.kind == "regression" else None
    if isinstance(value, str):
        return value
    word = record.get(SPLIT_COLUMN, "").casefold()
    if word and word not in SPLIT_WORDS:
        return FOREIGN_SPLIT
    ours = {PATIENT_COLUMN, INSTANCE_COLUMN, SPLIT_COLUMN, *([study.label.column] if value is not None else [])}
    others = {name: text for name, text in record.items() if name not in ours}
    return LabelRow(patient, instance, 0, SPLIT_WORDS.get(word), others, value=value)


def _number(text: str, study: StudySpec) -> float | str:
    if not text:
        return NO_VALUE
    try:
        number = float(text)
    except ValueError:
        return NO_NUMBER
    if not math.isfinite(number):
        return NO_NUMBER
    return number if study.regression.low <= number <= study.regression.high else OUT_OF_RANGE
