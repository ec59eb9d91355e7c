"""The gate's database: studies, decisions, tasks, versions, and the one input and output of each (study, round, kind).

Everything the gate writes into folders (verdicts, orders, outbox) follows from what is committed here, so that a crash
at any point is mended by the next pass.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from protocol.digest import parse_json
from protocol.messages import Reason, RoundTask, TaskKind, expect
from protocol.study import StudySpec, parse_study
from site_node.governance import (
    approval,
    high_water,
    ledger_heads,
    patient_accounts,
    privacy_ledger,
    quality_records,
    readiness_requests,
    switches,
    told_figures,
)
from site_node.governance.hash_chain import chain_schema
from site_node.governance.masking_records import MASKING_SCHEMA
from site_node.governance.policy import Patients
from site_node.settings import SitePaths
from site_node.sqlite import connect

StudyState = Literal["counting", "awaiting", "approved", "refused", "withdrawn", "closed"]
TaskState = Literal["waiting", "accepted", "refused", "answered", "cancelled"]

SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS studies (
    digest TEXT PRIMARY KEY, specification BLOB NOT NULL, noise_multiplier REAL, received_at REAL NOT NULL,
    state TEXT NOT NULL, reason TEXT, detail TEXT NOT NULL DEFAULT '', training_patients INTEGER NOT NULL DEFAULT 0,
    training_images INTEGER NOT NULL DEFAULT 0, held_out_patients INTEGER NOT NULL DEFAULT 0, cohort_digest TEXT,
    training_cohort TEXT, held_out_cohort TEXT, recount INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS decisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, study TEXT NOT NULL, decision TEXT NOT NULL, person TEXT NOT NULL,
    decided_at REAL NOT NULL, expires_at REAL, statement BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS decisions_of_study ON decisions (study, number);
CREATE TABLE IF NOT EXISTS tasks (
    task_id TEXT PRIMARY KEY, study TEXT NOT NULL, round INTEGER NOT NULL, kind TEXT NOT NULL,
    sequence INTEGER NOT NULL, digest TEXT NOT NULL, message BLOB NOT NULL, received_at REAL NOT NULL,
    state TEXT NOT NULL, reason TEXT);
CREATE INDEX IF NOT EXISTS tasks_by_state ON tasks (state);
CREATE TABLE IF NOT EXISTS inputs (
    study TEXT NOT NULL, round INTEGER NOT NULL, kind TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (study, round, kind));
CREATE TABLE IF NOT EXISTS outputs (
    study TEXT NOT NULL, round INTEGER NOT NULL, kind TEXT NOT NULL, digest TEXT NOT NULL, egress INTEGER NOT NULL,
    PRIMARY KEY (study, round, kind));
CREATE TABLE IF NOT EXISTS versions (
    study TEXT NOT NULL, kind TEXT NOT NULL, number INTEGER NOT NULL, weights_digest TEXT NOT NULL,
    PRIMARY KEY (study, kind, number));
CREATE TRIGGER IF NOT EXISTS versions_keep BEFORE UPDATE ON versions BEGIN SELECT RAISE(ABORT, 'one version'); END;
CREATE TRIGGER IF NOT EXISTS inputs_keep BEFORE UPDATE ON inputs BEGIN SELECT RAISE(ABORT, 'one input'); END;
CREATE TRIGGER IF NOT EXISTS outputs_keep BEFORE UPDATE ON outputs BEGIN SELECT RAISE(ABORT, 'one output'); END;
CREATE TRIGGER IF NOT EXISTS decisions_keep BEFORE UPDATE ON decisions BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TABLE IF NOT EXISTS mail (number INTEGER PRIMARY KEY, digest TEXT NOT NULL, outcome TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS envelopes (number INTEGER PRIMARY KEY, envelope BLOB NOT NULL, payload_digest TEXT);
CREATE TABLE IF NOT EXISTS unsent (number INTEGER PRIMARY KEY, payload_digest TEXT);
CREATE TABLE IF NOT EXISTS receipts (
    number INTEGER PRIMARY KEY, envelope BLOB NOT NULL, accepted INTEGER NOT NULL, reason TEXT NOT NULL,
    received_at TEXT NOT NULL);
"""
    + switches.SCHEMA
    + chain_schema("ledger")
    + chain_schema("egress")
    + patient_accounts.SCHEMA
    + privacy_ledger.SCHEMA
    + ledger_heads.SCHEMA
    + high_water.SCHEMA
    + quality_records.SCHEMA
    + told_figures.SCHEMA
    + readiness_requests.SCHEMA
    + approval.SCHEMA
    + MASKING_SCHEMA
)

VERSION_KINDS = (TaskKind.TRAIN, TaskKind.EVALUATE)


@dataclass(frozen=True)
class StudyRecord:
    """A study as it was proposed here, and where it stands."""

    digest: str
    specification: bytes
    noise_multiplier: float | None
    received_at: float
    state: StudyState
    reason: Reason | None
    detail: str
    training_patients: int
    training_images: int
    held_out_patients: int
    cohort_digest: str | None
    training_cohort: str | None
    held_out_cohort: str | None
    recount: int

    @property
    def study(self) -> StudySpec:
        """Return the specification, parsed from the stored bytes."""
        return _parsed(self.specification)

    @property
    def patients(self) -> Patients:
        """Return how many patients the study touches."""
        return Patients(self.training_patients, self.held_out_patients)

    @property
    def cohorts(self) -> dict[str, str | None]:
        """Return the digests of the groups of patients that the study touches."""
        return {"training": self.training_cohort, "held-out": self.held_out_cohort}


@dataclass(frozen=True)
class TaskRecord:
    """A task as it was received, and where it stands."""

    task_id: str
    digest: str
    message: bytes
    received_at: float
    state: TaskState
    reason: Reason | None

    @property
    def task(self) -> RoundTask:
        """Return the task, parsed from the stored bytes."""
        return expect(self.message, RoundTask)


def open_records(paths: SitePaths) -> sqlite3.Connection:
    """Open the gate's database."""
    opened = connect(paths.gate_database, SCHEMA, any_thread=True)
    opened.execute("PRAGMA secure_delete = ON")  # what is erased (secrets of masked rounds) is written over
    return opened


@lru_cache(maxsize=16)
def _parsed(specification: bytes) -> StudySpec:
    # A specification is frozen, and the gate looks at it in every pass: the same bytes are parsed once.
    return parse_study(parse_json(specification))


def study_record(database: sqlite3.Connection, digest: str) -> StudyRecord | None:
    """Return a study, or None if it was never proposed."""
    row = database.execute("SELECT * FROM studies WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else _study(row)


def study_records(database: sqlite3.Connection, *states: StudyState) -> list[StudyRecord]:
    """Return the studies in these states (all, if none are named), oldest first."""
    rows = database.execute("SELECT * FROM studies ORDER BY received_at, digest")
    return [_study(row) for row in rows if not states or row["state"] in states]


def set_study(database: sqlite3.Connection, digest: str, **columns: Any) -> None:
    """Change a study's columns. Call within a transaction."""
    names = ", ".join(f"{name} = ?" for name in columns)
    database.execute(f"UPDATE studies SET {names} WHERE digest = ?", (*columns.values(), digest))  # noqa: S608 - our names


def task_record(database: sqlite3.Connection, task_id: str) -> TaskRecord | None:
    """Return a task, or None if it is not known."""
    row = database.execute("SELECT * FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
    return None if row is None else _task(row)


def task_records(database: sqlite3.Connection, *states: TaskState) -> list[TaskRecord]:
    """Return the tasks in these states, oldest first."""
    marks = ", ".join("?" * len(states))
    rows = database.execute(f"SELECT * FROM tasks WHERE state IN ({marks}) ORDER BY received_at, task_id", states)  # noqa: S608
    return [_task(row) for row in rows]


def add_task(database: sqlite3.Connection, task: RoundTask, message: bytes, digest: str, now: float) -> None:
    """Keep a task that has come, still waiting. Call within a transaction."""
    database.execute(
        "INSERT INTO tasks (task_id, study, round, kind, sequence, digest, message, received_at, state) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'waiting')",
        (task.task_id, task.study_digest, task.round, task.kind, task.sequence, digest, message, now),
    )


def set_task(database: sqlite3.Connection, task_id: str, state: TaskState, reason: Reason | None = None) -> None:
    """Change a task's state. Call within a transaction."""
    database.execute("UPDATE tasks SET state = ?, reason = ? WHERE task_id = ?", (state, reason, task_id))


def tasks_given(database: sqlite3.Connection, study: str, kind: str) -> int:
    """Return how many tasks of a kind were ever accepted for a study."""
    row = database.execute("SELECT COUNT(*) FROM inputs WHERE study = ? AND kind = ?", (study, kind)).fetchone()
    return int(row[0])


def input_digest(database: sqlite3.Connection, task: RoundTask) -> str | None:
    """Return the digest of the one task that was accepted for this (study, round, kind)."""
    return _digest_in(database, "inputs", task)


def keep_version(
    database: sqlite3.Connection, study: str, kinds: Iterable[TaskKind], number: int, weights_digest: str
) -> None:
    """Remember the weights that tasks of these kinds name by a number; the first stay. Call within a transaction."""
    rows = [(study, kind, number, weights_digest) for kind in kinds]
    database.executemany("INSERT OR IGNORE INTO versions VALUES (?, ?, ?, ?)", rows)


def known_version(database: sqlite3.Connection, task: RoundTask) -> str | None:
    """Return the digest of the weights that the task's base is known by here, or None."""
    if task.base is None:
        return None
    row = database.execute(
        "SELECT weights_digest FROM versions WHERE study = ? AND kind = ? AND number = ?",
        (task.study_digest, task.kind, task.base.number),
    ).fetchone()
    return None if row is None else str(row["weights_digest"])


def newest_version(database: sqlite3.Connection, study: str) -> int | None:
    """Return the highest number of a study's version that a task has named here, or None."""
    row = database.execute("SELECT MAX(number) AS newest FROM versions WHERE study = ?", (study,)).fetchone()
    return None if row["newest"] is None else int(row["newest"])


def output_digest(database: sqlite3.Connection, task: RoundTask) -> str | None:
    """Return the digest of the one message that left for this (study, round, kind)."""
    return _digest_in(database, "outputs", task)


def is_paused(database: sqlite3.Connection) -> bool:
    """Tell whether the administrator has paused the site."""
    return switches.is_on(database, "paused")


def set_paused(database: sqlite3.Connection, paused: bool) -> None:
    """Pause the site or let it go on."""
    switches.turn(database, "paused", on=paused)


def _digest_in(database: sqlite3.Connection, table: Literal["inputs", "outputs"], task: RoundTask) -> str | None:
    row = database.execute(
        f"SELECT digest FROM {table} WHERE study = ? AND round = ? AND kind = ?",  # noqa: S608 - one of two names
        (task.study_digest, task.round, task.kind),
    ).fetchone()
    return None if row is None else str(row["digest"])


def _study(row: sqlite3.Row) -> StudyRecord:
    fields = {**dict(row), "reason": Reason(row["reason"]) if row["reason"] else None}
    return StudyRecord(**fields)


def _task(row: sqlite3.Row) -> TaskRecord:
    reason = Reason(row["reason"]) if row["reason"] else None
    return TaskRecord(row["task_id"], row["digest"], row["message"], row["received_at"], row["state"], reason)
