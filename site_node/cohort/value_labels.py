"""labels.csv of studies that learn no class: which images take part, whose they are, and of regression their numbers.

A segmentation study reads patient, instance and split alone: what is learnt lies in the masks (`masks.py`). In a
regression study the label column holds a number of the study's range.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from protocol.study import StudySpec
from site_node.cohort.label_columns import Said
from site_node.cohort.labels import NO_VALUE, Labels, Records, labels_of, records_of

NO_NUMBER = "label: the value is no number"
OUT_OF_RANGE = "label: the number is outside the study's range"


def read_value_labels(path: Path, study: StudySpec, records: Records | None = None) -> Labels:
    """Read labels.csv, or `records`, for a segmentation or regression study; every row has class 0.

    Raises: LabelsError if the file is missing, is no such table, or lacks a column. Faulty rows fall out, counted.
    """
    if study.kind == "regression":
        return labels_of(records or records_of(path), [study.label.column], partial(_number, study))
    return labels_of(records or records_of(path), [], lambda _: Said(0))


def _number(study: StudySpec, record: Mapping[str, str]) -> Said | str:
    text = record[study.label.column]
    if not text:
        return NO_VALUE
    try:
        number = float(text)
    except ValueError:
        return NO_NUMBER
    if not math.isfinite(number):
        return NO_NUMBER
    if not study.regression.low <= number <= study.regression.high:
        return OUT_OF_RANGE
    return Said(0, value=number)
