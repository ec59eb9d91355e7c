"""Readiness reports that were asked for at this site, by a person or by its policy: at most a few for each study."""

import sqlite3
from dataclasses import dataclass
from typing import Literal

from protocol.readiness import MOST_REPORTS

SCHEMA = """
CREATE TABLE IF NOT EXISTS readiness (
    study TEXT NOT NULL, number INTEGER NOT NULL, asked_by TEXT NOT NULL, asked_at REAL NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (study, number));
"""
AskedBy = Literal["person", "policy"]
RequestState = Literal["asked", "told", "dropped"]


@dataclass(frozen=True)
class ReadinessRequest:
    """A report that was asked for; `number` counts a study's reports from 1."""

    study: str
    number: int
    asked_by: AskedBy
    asked_at: float
    state: RequestState


def readiness_requests(database: sqlite3.Connection, *states: RequestState) -> list[ReadinessRequest]:
    """Return the reports that were asked for, in these states (all, if none are named), oldest first."""
    rows = database.execute("SELECT * FROM readiness ORDER BY asked_at, study, number")
    return [ReadinessRequest(**dict(row)) for row in rows if not states or row["state"] in states]


def ask_for_readiness(database: sqlite3.Connection, study: str, asked_by: AskedBy, now: float) -> int | None:
    """Note that a study's report is asked for and return its number; None if no more may leave.

    One that is on its way is not asked for again; it is then also the person's, if a person asks. Call within a
    transaction.
    """
    before = [request for request in readiness_requests(database) if request.study == study]
    waiting = next((request.number for request in before if request.state == "asked"), None)
    if waiting is not None:
        if asked_by == "person":
            database.execute(
                "UPDATE readiness SET asked_by = 'person' WHERE study = ? AND number = ?", (study, waiting)
            )
        return waiting
    number = sum(request.state == "told" for request in before) + 1
    if number > MOST_REPORTS:
        return None
    database.execute("INSERT OR REPLACE INTO readiness VALUES (?, ?, ?, ?, 'asked')", (study, number, asked_by, now))
    return number


def set_readiness(database: sqlite3.Connection, request: ReadinessRequest, state: RequestState) -> None:
    """Change a request's state. Call within a transaction."""
    database.execute(
        "UPDATE readiness SET state = ? WHERE study = ? AND number = ?", (state, request.study, request.number)
    )
