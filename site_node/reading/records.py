"""What readers did: every view and every reading, in the worker's own folder. Nothing of it leaves the hospital.

A view is written before its picture is sent. A reading is given once and stands: what is shown afterwards, the
hospital's own label, would make a second one worthless.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from site_node.errors import SettingsError
from site_node.reading.rooms import reading_folder
from site_node.settings import SitePaths
from site_node.sqlite import connection, transaction

SHOWN = "shown"
SEPARATOR = "\x1f"
SCHEMA = """
CREATE TABLE IF NOT EXISTS views (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, person TEXT NOT NULL, case_code TEXT NOT NULL,
    image INTEGER NOT NULL, slice INTEGER NOT NULL, outcome TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS readings (
    study_digest TEXT NOT NULL, case_code TEXT NOT NULL, person TEXT NOT NULL, labels TEXT NOT NULL,
    confidence INTEGER NOT NULL, given_at REAL NOT NULL, PRIMARY KEY (case_code, person));
"""


@dataclass(frozen=True)
class Reading:
    """A person's judgement of a case: the study's words that apply, and from 1 (guessed) to 5 (certain)."""

    study_digest: str
    case_code: str
    person: str
    labels: tuple[str, ...]
    confidence: int
    given_at: float

    def as_json(self) -> dict[str, Any]:
        """Return the reading as plain data."""
        return {**asdict(self), "labels": list(self.labels)}


@contextmanager
def open_reading_records(paths: SitePaths) -> Iterator[sqlite3.Connection]:
    """Open the records of reading, making them if they are not there."""
    folder = reading_folder(paths)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "records.sqlite"
    path.touch(mode=0o600)
    with connection(path, SCHEMA) as database:
        yield database


def record_view(
    database: sqlite3.Connection, person: str, code: str, image: int, number: int, outcome: str, now: float
) -> None:
    """Record that somebody was shown a picture, or why not."""
    with transaction(database):
        database.execute(
            "INSERT INTO views (at, person, case_code, image, slice, outcome) VALUES (?, ?, ?, ?, ?, ?)",
            (now, person, code, image, number, outcome),
        )


def views_after(database: sqlite3.Connection, after: int, most: int) -> list[dict[str, Any]]:
    """Return views after the one of this number, in order."""
    rows = database.execute("SELECT * FROM views WHERE number > ? ORDER BY number LIMIT ?", (after, most))
    return [dict(row) for row in rows]


def give_reading(database: sqlite3.Connection, reading: Reading) -> None:
    """Keep a reading.

    Raises: SettingsError if the person has read the case already.
    """
    with transaction(database):
        if reading_by(database, reading.case_code, reading.person) is not None:
            raise SettingsError("You have read this case already.", "A reading stands as it was given.")
        database.execute(
            "INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(reading.study_digest, reading.case_code, reading.person),
                *(SEPARATOR.join(reading.labels), reading.confidence, reading.given_at),
            ),
        )


def reading_by(database: sqlite3.Connection, code: str, person: str) -> Reading | None:
    """Return what a person read in a case, None if nothing yet."""
    rows = database.execute("SELECT * FROM readings WHERE case_code = ? AND person = ?", (code, person)).fetchall()
    return _readings(rows)[0] if rows else None


def readings_of(database: sqlite3.Connection, study_digest: str, person: str | None = None) -> list[Reading]:
    """Return a study's readings in the order in which they were given, of one person or of all."""
    rows = database.execute(
        "SELECT * FROM readings WHERE study_digest = ? AND person = coalesce(?, person) ORDER BY given_at, case_code",
        (study_digest, person),
    ).fetchall()
    return _readings(rows)


def _readings(rows: Sequence[sqlite3.Row]) -> list[Reading]:
    return [
        Reading(
            *(row["study_digest"], row["case_code"], row["person"]),
            tuple(row["labels"].split(SEPARATOR)) if row["labels"] else (),
            *(row["confidence"], row["given_at"]),
        )
        for row in rows
    ]
