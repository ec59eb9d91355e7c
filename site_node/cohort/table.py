"""Read a site's table for a tabular study: which patient has which values, which label, and which split.

A CSV with the columns `patient_id`, those that the study names, and optionally `split` (train, validation or test;
overrides the keyed hash). Other columns are not read. A patient may have several rows, as others have several images.
A value is scaled by the study's constants and by nothing else; a row that cannot be used falls out, counted by reason,
which begins with `row:`. Nothing of this file leaves the hospital.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protocol.study import StudySpec
from protocol.study_parts import Split
from protocol.table import Feature
from site_node.cohort.csv_file import PATIENT_COLUMN, SPLIT_COLUMN, SPLIT_WORDS, read_records
from site_node.cohort.findings import Findings
from site_node.cohort.identities import AS_THEY_ARE, Identities
from site_node.cohort.label_columns import columns_of, is_missing, said_in
from site_node.cohort.quality import Noticed

IF_UNREADABLE = "Put the table there, or name another in site.yaml (table)."
MISSING_WORDS = frozenset({"", "na", "n/a", "nan", "null", "?"})

LARGEST = float(np.finfo(np.float32).max)

NO_PATIENT = "row: it lacks a patient id"
NO_LABEL = "row: it has no value in the study's label column"
FOREIGN_LABEL = "row: the label is none of the study's classes"
NO_TIME = "row: the time is missing, or no number from 0 on"
EMPTY_CELL = "row: a column that the study needs is empty"
NO_NUMBER = "row: a column that the study needs holds no usable number"
FOREIGN_SPLIT = "row: the split is none of train, validation, test"
UNREADABLE = frozenset({FOREIGN_LABEL, NO_TIME, EMPTY_CELL, NO_NUMBER})
"""What tells of a table's quality; a row without a label may just not belong to the study."""


@dataclass(frozen=True)
class TableRow:
    """A usable row: `values` are scaled, as a network sees them; `time` is None but in survival studies."""

    patient_id: str
    values: tuple[float, ...]
    label: int
    time: float | None
    split: Split | None
    findings: Findings = ()


def read_table(
    path: Path, study: StudySpec, noticed: Noticed | None = None, identities: Identities = AS_THEY_ARE
) -> tuple[list[TableRow], Counter[str]]:
    """Return the usable rows of a table in their order, and how many fell out for which reason.

    Every patient stands under their one id; of who has opted out there is no row. Whose row fell out because of what
    stands in it is added to `noticed`.
    Raises: LabelsError if the file is missing, is no such table, or lacks a column.
    """
    time_column = study.label.time_column
    needed = [PATIENT_COLUMN, *columns_of(study.label), *(feature.column for feature in study.table.features)]
    rows, dropped = list[TableRow](), Counter[str]()
    for record in read_records(path, [*needed, *([time_column] if time_column else [])], IF_UNREADABLE):
        if not identities.takes_part(record[PATIENT_COLUMN]):
            continue
        record[PATIENT_COLUMN] = identities.one(record[PATIENT_COLUMN])
        row = _row(record, study)
        if isinstance(row, str):
            dropped[row] += 1
            if noticed is not None and row in UNREADABLE:
                noticed.unreadable.add(record[PATIENT_COLUMN])
        else:
            rows.append(row)
    return rows, dropped


def _row(record: Mapping[str, str], study: StudySpec) -> TableRow | str:
    if not record[PATIENT_COLUMN]:
        return NO_PATIENT
    if is_missing(record, study.label, MISSING_WORDS):
        return NO_LABEL
    said = said_in(record, study.label)
    if said is None:
        return FOREIGN_LABEL
    word = record.get(SPLIT_COLUMN, "").casefold()
    if word and word not in SPLIT_WORDS:
        return FOREIGN_SPLIT
    time = _number(record[study.label.time_column]) if study.label.time_column else None
    if study.is_survival and (time is None or time < 0):
        return NO_TIME
    values = _values(record, study.table.features)
    return values if isinstance(values, str) else TableRow(
        record[PATIENT_COLUMN], values, said.label, time, SPLIT_WORDS.get(word), said.findings
    )  # fmt: skip


def _values(record: Mapping[str, str], features: Sequence[Feature]) -> tuple[float, ...] | str:
    values: list[float] = []
    for feature in features:
        written = record[feature.column]
        value = feature.missing if _is_missing(written) else _number(written)
        if value is None:
            return EMPTY_CELL if _is_missing(written) else NO_NUMBER
        values.append((value - feature.mean) / feature.deviation)
    # a network computes in float32: what is no number there would be none in every gradient
    return tuple(values) if max(map(abs, values)) <= LARGEST else NO_NUMBER


def _is_missing(written: str) -> bool:
    return written.casefold() in MISSING_WORDS


def _number(written: str) -> float | None:
    try:
        value = float(written)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
