"""What `wardround site index` says of a table, before any study names its columns: counts and faults, never a value.

Not even a column's name is said: in a file without a header line that would be a patient's row.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.study_parts import Split
from site_node.cohort.cohort import SMALLEST_SAID
from site_node.cohort.csv_file import PATIENT_COLUMN, SPLIT_COLUMN, SPLIT_WORDS, read_records
from site_node.cohort.table import FOREIGN_SPLIT, IF_UNREADABLE, NO_PATIENT

SEVERAL_SPLITS = "patient: the rows of one patient are put into several splits"


@dataclass(frozen=True)
class TableReport:
    """What a table holds; `problems` counts rows (or patients) by what is wrong with them."""

    rows: int
    patients: int
    columns: int
    problems: dict[str, int]


def examine_table(path: Path) -> TableReport:
    """Read a table and count.

    Raises: LabelsError if the file is missing, is no such table, or has no column patient_id.
    """
    rows = columns = 0
    splits: dict[str, set[Split]] = {}
    problems: Counter[str] = Counter()
    for record in read_records(path, [PATIENT_COLUMN], IF_UNREADABLE):
        rows, columns = rows + 1, len(record)
        patient, word = record[PATIENT_COLUMN], record.get(SPLIT_COLUMN, "").casefold()
        if not patient:
            problems[NO_PATIENT] += 1
            continue
        stated = splits.setdefault(patient, set())
        if word in SPLIT_WORDS:
            stated.add(SPLIT_WORDS[word])
        elif word:
            problems[FOREIGN_SPLIT] += 1
    several = sum(len(stated) > 1 for stated in splits.values())
    if several:
        problems[SEVERAL_SPLITS] = several
    return TableReport(rows, len(splits), columns, dict(sorted(problems.items())))


def table_as_json(report: TableReport) -> dict[str, Any]:
    """Return the report as plain data; null stands for a problem's number that is small."""
    problems = [
        {"reason": reason, "number": number if number >= SMALLEST_SAID else None}
        for reason, number in report.problems.items()
    ]
    return {"rows": report.rows, "patients": report.patients, "columns": report.columns, "problems": problems}


def table_as_text(report: TableReport) -> str:
    """Return the report in lines, small numbers hidden: it is often copied into a letter."""
    lines = [f"a table of {report.rows} rows of {report.patients} patients, {report.columns} columns"]
    for reason, number in report.problems.items():
        said = str(number) if number >= SMALLEST_SAID else f"fewer than {SMALLEST_SAID}"
        lines.append(f"  {said} x {reason}")
    return "\n".join(lines)
