"""Who has opted out: the record of `wardround site opt-out`, beside the hospital's own list. It never leaves the site.

The record says since when. It holds plain patient ids and lies in the worker's own folder, because the worker leaves
these patients out of every cohort: of a study that is counted from now on, and of a running one from its next task on.
"""

import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from site_node.cohort.csv_file import PATIENT_COLUMN, read_records
from site_node.cohort.identities import Identities, read_identities
from site_node.cohort.index_database import open_index
from site_node.cohort.labels import IF_UNREADABLE as IF_NO_LABELS
from site_node.cohort.table import IF_UNREADABLE as IF_NO_TABLE
from site_node.settings import SiteSettings
from site_node.sqlite import connect, transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS opt_outs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, patient_id TEXT NOT NULL, opted_out_at REAL NOT NULL, undone_at REAL);
CREATE UNIQUE INDEX IF NOT EXISTS one_opt_out ON opt_outs (patient_id) WHERE undone_at IS NULL;
"""


@dataclass(frozen=True)
class OptOut:
    """A patient by all their ids, and since when they take no part; None: the hospital's list says no time."""

    ids: tuple[str, ...]
    since: float | None


def load_identities(settings: SiteSettings) -> Identities:
    """Return who is one patient here and who has opted out, by the two files and the record.

    Raises: LabelsError if a file that site.yaml names is not there: nobody may be used whose objection is unreadable.
    """
    found = read_identities(settings.merged_patients, settings.excluded_patients)
    return found.without(recorded_opt_outs(settings.paths.opt_outs))


def known_patients(settings: SiteSettings) -> frozenset[str]:
    """Return every id by which this site knows a patient: of the index, labels.csv, the table and the merge table.

    Raises: LabelsError if one of these files cannot be read.
    """
    found = set(load_identities(settings).one_id)
    if settings.paths.index.exists():
        with open_index(settings.paths.index) as database:
            found |= database.patient_ids()
    for file, remedy in ((settings.labels, IF_NO_LABELS), (settings.table, IF_NO_TABLE)):
        if file is not None and file.exists():
            found |= {record[PATIENT_COLUMN] for record in read_records(file, (PATIENT_COLUMN,), remedy)}
    return frozenset(found)


def as_written_here(patients: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return these ids as they are known, whatever their capitals; an id that nobody has stays as it is. Pure."""
    spellings: dict[str, list[str]] = {}
    for one in sorted(known):
        spellings.setdefault(one.casefold(), []).append(one)
    return list(dict.fromkeys(one for named in patients for one in spellings.get(named.casefold(), [named])))


def all_opt_outs(settings: SiteSettings) -> list[OptOut]:
    """Return everybody who has opted out, by the record and the hospital's list, each patient once."""
    identities = load_identities(settings)
    recorded = recorded_opt_outs(settings.paths.opt_outs)
    since: dict[str, float | None] = {}
    for patient in (*recorded, *sorted(identities.opted_out - recorded.keys())):
        since.setdefault(identities.one(patient), recorded.get(patient))  # the first time counts: the record's order
    return [OptOut(identities.known_as(one), moment) for one, moment in since.items()]


def recorded_opt_outs(path: Path) -> dict[str, float]:
    """Return the patients whom the record holds, by the id that was typed, with the time, in its order."""
    if not path.exists():
        return {}
    with closing(connect(path, SCHEMA)) as database:
        rows = database.execute(
            "SELECT patient_id, opted_out_at FROM opt_outs WHERE undone_at IS NULL ORDER BY number"
        ).fetchall()
    return {row["patient_id"]: row["opted_out_at"] for row in rows}


def record_opt_outs(path: Path, patients: Iterable[str], now: float | None = None) -> int:
    """Record that these patients have opted out and return how many had not; they stay with their first time."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    return _change(path, "INSERT OR IGNORE INTO opt_outs (opted_out_at, patient_id) VALUES (?, ?)", patients, now)


def undo_opt_outs(path: Path, patients: Iterable[str], now: float | None = None) -> int:
    """Take these patients out of the record and return how many were in it; that they were stays written."""
    if not path.exists():
        return 0
    return _change(path, "UPDATE opt_outs SET undone_at = ? WHERE patient_id = ? AND undone_at IS NULL", patients, now)


def _change(path: Path, statement: str, patients: Iterable[str], now: float | None) -> int:
    """Run a statement of a moment and a patient for each of them, and return how many rows it changed."""
    moment = time.time() if now is None else now
    with closing(connect(path, SCHEMA)) as database, transaction(database):
        before = database.total_changes
        database.executemany(statement, [(moment, patient) for patient in dict.fromkeys(patients)])
        return database.total_changes - before
