"""What was to be fetched from the PACS and what became of it: a run that was killed goes on from here.

The journal holds study instance UIDs and accession numbers. It lies in the ingest process's own folder; what is printed
and written as a receipt has our own numbers instead.

    planned ──► fetched      all that the PACS listed is here, or quarantined with its reason
        └─────► failed       with the reason; planned again by the next run that wants it
"""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from site_node.sqlite import connect, transaction

State = Literal["planned", "fetched", "failed"]
SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run INTEGER PRIMARY KEY AUTOINCREMENT,
    began_at REAL NOT NULL,
    ended_at REAL,
    outcome TEXT
);
CREATE TABLE IF NOT EXISTS imaging_studies (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL,      -- study instance UID; for one that was not found, the accession number
    found INTEGER NOT NULL,
    scope TEXT NOT NULL,        -- which series were wanted
    accession TEXT,
    state TEXT NOT NULL CHECK (state IN ('planned', 'fetched', 'failed')),
    reason TEXT,
    announced INTEGER,          -- how many instances the PACS counts in the imaging study
    listed INTEGER,             -- how many it listed in the series that are wanted
    here INTEGER NOT NULL DEFAULT 0,
    quarantined INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    UNIQUE (subject, found, scope)
);
CREATE TABLE IF NOT EXISTS wanted (
    run INTEGER NOT NULL REFERENCES runs (run),
    number INTEGER NOT NULL REFERENCES imaging_studies (number),
    line INTEGER,               -- of the list of accession numbers
    already INTEGER NOT NULL,   -- all of it was here before this run
    PRIMARY KEY (run, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stored (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    instances INTEGER NOT NULL  -- how many all runs put away, series by series
);
CREATE TABLE IF NOT EXISTS quarantined_instances (
    number INTEGER NOT NULL REFERENCES imaging_studies (number),
    sop_instance_uid TEXT NOT NULL,
    PRIMARY KEY (number, sop_instance_uid)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Entry:
    """One imaging study in one run; `already`: all of it was here before the run."""

    number: int
    subject: str
    accession: str | None
    line: int | None
    state: State
    reason: str | None
    announced: int | None
    listed: int | None
    here: int
    quarantined: int
    attempts: int
    already: bool


class RetrievalJournal:
    """The journal's database, open."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._database: sqlite3.Connection = connect(path, SCHEMA)
        self._clock = clock

    def close(self) -> None:
        """Close it."""
        self._database.close()

    def begin(self) -> int:
        """Begin a run and return its number."""
        with transaction(self._database) as database:
            cursor = database.execute("INSERT INTO runs (began_at) VALUES (?)", (self._clock(),))
            return int(cursor.lastrowid or 0)

    def end(self, run: int, outcome: str) -> None:
        """Note how a run ended; a run without an outcome was killed."""
        with transaction(self._database) as database:
            database.execute("UPDATE runs SET ended_at = ?, outcome = ? WHERE run = ?", (self._clock(), outcome, run))

    def plan(
        self,
        run: int,
        uid: str,
        scope: str,
        *,
        accession: str | None,
        announced: int | None,
        line: int | None,
        again: bool,
    ) -> None:
        """Plan an imaging study, unless all of it was fetched before and the PACS counts no more in it now."""
        with transaction(self._database) as database:
            known = database.execute(
                "SELECT number, state, announced FROM imaging_studies WHERE subject = ? AND found AND scope = ?",
                (uid, scope),
            ).fetchone()
            already = (
                known is not None and known["state"] == "fetched" and known["announced"] == announced and not again
            )
            if not already:
                database.execute(
                    "INSERT INTO imaging_studies (subject, found, scope, accession, state, announced) "
                    "VALUES (?, 1, ?, ?, 'planned', ?) ON CONFLICT (subject, found, scope) DO UPDATE SET "
                    "state = 'planned', reason = NULL, attempts = 0, announced = excluded.announced",
                    (uid, scope, accession, announced),
                )
            self._want(database, run, uid, scope, True, line, already)

    def not_found(self, run: int, accession: str, scope: str, line: int, reason: str) -> None:
        """Note an accession number that leads to no imaging study."""
        with transaction(self._database) as database:
            database.execute(
                "INSERT INTO imaging_studies (subject, found, scope, accession, state, reason) "
                "VALUES (?, 0, ?, ?, 'failed', ?) "
                "ON CONFLICT (subject, found, scope) DO UPDATE SET reason = excluded.reason",
                (accession, scope, accession, reason),
            )
            self._want(database, run, accession, scope, False, line, False)

    def listed(self, number: int, listed: int, here: int) -> None:
        """Note how many instances the PACS lists, and how many of them are here."""
        self._set(number, "listed = ?, here = ?", listed, here)

    def were_here(self, run: int, number: int) -> None:
        """Note that all of an imaging study was here before this run, whatever brought it."""
        with transaction(self._database) as database:
            database.execute("UPDATE wanted SET already = 1 WHERE run = ? AND number = ?", (run, number))

    def stored(self, instances: int) -> None:
        """Count instances that came and were put away."""
        if instances:
            with transaction(self._database) as database:
                database.execute(
                    "INSERT INTO stored VALUES (1, ?) "
                    "ON CONFLICT (only_row) DO UPDATE SET instances = instances + excluded.instances",
                    (instances,),
                )

    def stored_so_far(self) -> int:
        """Return how many instances all runs put away."""
        row = self._database.execute("SELECT instances FROM stored").fetchone()
        return 0 if row is None else int(row[0])

    def tried(self, number: int) -> None:
        """Count an attempt."""
        self._set(number, "attempts = attempts + ?", 1)

    def quarantine(self, number: int, sop_instance_uid: str) -> None:
        """Note that an instance came and cannot be taken: it is not asked for again."""
        with transaction(self._database) as database:
            database.execute("INSERT OR IGNORE INTO quarantined_instances VALUES (?, ?)", (number, sop_instance_uid))
            database.execute(
                "UPDATE imaging_studies SET quarantined = "
                "(SELECT count(*) FROM quarantined_instances WHERE number = ?) WHERE number = ?",
                (number, number),
            )

    def quarantined(self, number: int) -> frozenset[str]:
        """Return the instances of an imaging study that came and were refused."""
        rows = self._database.execute("SELECT sop_instance_uid FROM quarantined_instances WHERE number = ?", (number,))
        return frozenset(row[0] for row in rows)

    def settle(self, number: int, state: State, reason: str | None = None) -> None:
        """Note that an imaging study is fetched, has failed, or waits for another attempt."""
        self._set(number, "state = ?, reason = ?", state, reason)

    def entries(self, run: int, state: State | None = None) -> list[Entry]:
        """Return the imaging studies of a run, in the order in which they were planned; those of one state alone."""
        rows = self._database.execute(
            "SELECT number, subject, accession, line, state, reason, announced, listed, here, quarantined, attempts, "
            "already FROM wanted JOIN imaging_studies USING (number) WHERE run = ? ORDER BY number",
            (run,),
        )
        found = (Entry(**{**dict(row), "already": bool(row["already"])}) for row in rows)
        return [entry for entry in found if state is None or entry.state == state]

    def _set(self, number: int, what: str, *values: object) -> None:
        with transaction(self._database) as database:
            database.execute(f"UPDATE imaging_studies SET {what} WHERE number = ?", (*values, number))  # noqa: S608 - ours

    @staticmethod
    def _want(
        database: sqlite3.Connection, run: int, subject: str, scope: str, found: bool, line: int | None, already: bool
    ) -> None:
        database.execute(
            "INSERT OR IGNORE INTO wanted SELECT ?, number, ?, ? FROM imaging_studies "
            "WHERE subject = ? AND found = ? AND scope = ?",
            (run, line, already, subject, found, scope),
        )
