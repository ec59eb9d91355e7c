"""The patients of a tabular study: the rows of the site's table, grouped by patient, in place of images.

Everything after that is as with images (`cohort.py`): splits by patient, the budget's roll, the manifest's digest, the
frozen cohort. The rows' values are kept with the cohort, so that a table that is written anew does not change a study
that has begun.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from protocol.digest import digest_of_bytes
from protocol.study import StudySpec
from site_node.cohort.cohort import Cohort, ImageRef, Patient, chosen_cohort, everybody
from site_node.cohort.findings import patient_findings, patient_label
from site_node.cohort.identities import AS_THEY_ARE, Identities
from site_node.cohort.quality import Noticed
from site_node.cohort.splits import split_of
from site_node.cohort.table import TableRow, read_table
from site_node.errors import LabelsError

SEVERAL_SPLITS = "patient: the table puts the patient into several splits"
SEVERAL_TIMES = "patient: the table's rows of the patient name different times or events"
REPEATED = "row: it repeats another row of the same patient"

Rows = Mapping[str, TableRow]
"""A patient's different rows, by the digest of what is read of them."""


def build_table_cohort(
    table: Path | None,
    study: StudySpec,
    split_key: bytes,
    may_take_part: Callable[[Patient], bool] = everybody,
    identities: Identities = AS_THEY_ARE,
) -> Cohort:
    """Build a tabular study's cohort from the site's table; who may not take part is left out and not counted.

    Guarantee: the same rows, in any order and wherever the file lies, study and key give the same cohort. Rows of one
        patient that are equal in all that is read of them count once.
    Raises: LabelsError if there is no such table; TooFewPatientsError if nobody is left.
    """
    if table is None:
        raise LabelsError("This site offers no table.", "Name a CSV in site.yaml (table), or refuse the study.")
    noticed = Noticed()
    rows, dropped = read_table(table, study, noticed, identities)
    by_patient: defaultdict[str, dict[str, TableRow]] = defaultdict(dict)
    for row in rows:
        if by_patient[row.patient_id].setdefault(_digest_of(row), row) is not row:
            dropped[REPEATED] += 1
            noticed.repeated.add(row.patient_id)
    found = _patients(by_patient, table, study, split_key, dropped, identities)
    cohort = chosen_cohort(found, study, split_key, may_take_part, dropped)
    chosen = [by_patient[p.key][image.sop_instance_uid].values for p in cohort.patients for image in p.images]
    return replace(cohort, values=np.array(chosen, np.float32), noticed=noticed)


def _patients(
    by_patient: Mapping[str, Rows],
    table: Path,
    study: StudySpec,
    split_key: bytes,
    dropped: Counter[str],
    identities: Identities,
) -> Iterable[Patient]:
    for key, rows in sorted(by_patient.items()):
        split = split_of(identities.dealt_as(key), {row.split for row in rows.values()}, study.splits, split_key)
        times = {(row.time, row.label) for row in rows.values()}
        if split is None:
            dropped[SEVERAL_SPLITS] += 1
        elif study.is_survival and len(times) > 1:
            dropped[SEVERAL_TIMES] += 1
        else:
            images = tuple(_image(table, name, row) for name, row in sorted(rows.items()))
            label = patient_label([row.label for row in rows.values()], study.label.patient_label)
            findings = patient_findings([row.findings for row in rows.values()], study.label.patient_label)
            yield Patient(key, images, label, split, next(iter(rows.values())).time, findings)


def _image(table: Path, name: str, row: TableRow) -> ImageRef:
    return ImageRef(table, name, row.label, content_digest=name, findings=row.findings)


def _digest_of(row: TableRow) -> str:
    numbers = [*row.values, float(row.label), -1.0 if row.time is None else row.time]
    numbers += [-1.0 if known is None else float(known) for known in row.findings]
    return digest_of_bytes(np.array(numbers, np.float64).tobytes())
