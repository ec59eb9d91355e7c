"""Leases: who works on a job now, since when, and whose result still counts.

A lease is a row with a heartbeat and a fencing token. Whoever takes over an expired one gets the next token; a holder
whose token is no longer the row's has lost the job, however sure it is, and its result is refused. Publishing happens
inside the transaction that checks the token, so no takeover can fall in between.
The clocks of machines that share a site's folder must agree within a few seconds, and their names must differ.
Source: Kleppmann 2016, "How to do distributed locking" (fencing tokens).
"""

import os
import platform
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from site_node.sqlite import connect, transaction

HEARTBEAT_SECONDS = 2.0
EXPIRY_SECONDS = 15.0
REST_SECONDS = (5.0, 30.0)
"""After a job failed for what may pass (memory, disk, its process killed), so long is waited before it is tried again:
after the first time, and after every later one."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    task_id TEXT PRIMARY KEY, token INTEGER NOT NULL, holder TEXT NOT NULL, beat_at REAL NOT NULL,
    held INTEGER NOT NULL, crashes INTEGER NOT NULL DEFAULT 0);
"""


@dataclass(frozen=True)
class Lease:
    """The right to work on a job, as long as the row still has this token."""

    task_id: str
    token: int
    crashes: int


def holder_name() -> str:
    """Return a name for this process: machine, process id, and a word that no other process has."""
    return f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"


class Leases:
    """The leases of a site, in worker/jobs.sqlite. One object for each thread."""

    def __init__(self, path: Path, holder: str, clock: Callable[[], float]) -> None:
        self._database = connect(path, SCHEMA, any_thread=True, shared_by_machines=True)
        self._holder = holder
        self._clock = clock

    def acquire(self, task_id: str) -> Lease | None:
        """Take the lease of a job, or return None if somebody alive has it, or it rests after a failure."""
        with transaction(self._database) as database:
            row = self._row(task_id)
            if row is not None and (self._is_alive(row) or self._rests(row)):
                return None
            token = 1 if row is None else row["token"] + 1
            crashes = 0 if row is None else row["crashes"]
            database.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, 1, ?)",
                (task_id, token, self._holder, self._clock(), crashes),
            )
        return Lease(task_id, token, crashes)

    def beat(self, lease: Lease) -> bool:
        """Say that the holder is alive; tell whether it still holds the lease."""
        with transaction(self._database) as database:
            changed = database.execute(
                "UPDATE leases SET beat_at = ? WHERE task_id = ? AND token = ? AND held = 1",
                (self._clock(), lease.task_id, lease.token),
            )
            return changed.rowcount == 1

    def publish(self, lease: Lease, action: Callable[[], None]) -> bool:
        """Do the action if the lease is still held, then release it; tell whether it was done.

        Guarantee: no other holder can take the lease between the check and the action.
        """
        with transaction(self._database) as database:
            row = self._row(lease.task_id)
            if row is None or not row["held"] or row["token"] != lease.token:
                return False
            action()
            database.execute("UPDATE leases SET held = 0 WHERE task_id = ?", (lease.task_id,))
            return True

    def release(self, lease: Lease, *, crashed: bool = False) -> None:
        """Give the lease back without a result, noting if the job failed: then it rests for a while."""
        with transaction(self._database) as database:
            database.execute(
                "UPDATE leases SET held = 0, crashes = crashes + ?, beat_at = ? WHERE task_id = ? AND token = ?",
                (int(crashed), self._clock(), lease.task_id, lease.token),
            )

    def is_free(self, task_id: str) -> bool:
        """Tell whether nobody alive holds a job, and it does not rest."""
        row = self._row(task_id)
        return row is None or not (self._is_alive(row) or self._rests(row))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _row(self, task_id: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._database.execute(
            "SELECT * FROM leases WHERE task_id = ?", (task_id,)
        ).fetchone()
        return row

    def _is_alive(self, row: sqlite3.Row) -> bool:
        return (
            bool(row["held"])
            and abs(self._clock() - row["beat_at"]) < EXPIRY_SECONDS  # ahead of now: the clock was set back
            and not _is_dead_here(row["holder"])
        )

    def _rests(self, row: sqlite3.Row) -> bool:
        if row["held"] or not row["crashes"]:
            return False
        rest = REST_SECONDS[min(row["crashes"], len(REST_SECONDS)) - 1]
        return bool(0 <= self._clock() - row["beat_at"] < rest)  # a clock that was set back lengthens nothing


def _is_dead_here(holder: str) -> bool:
    """Tell whether a holder was a process of this machine that is gone; saves waiting for the expiry."""
    machine, _, rest = holder.partition(":")
    process = rest.partition(":")[0]
    if machine != platform.node() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
