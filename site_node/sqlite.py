"""SQLite as a site uses it: WAL on a local disk, every write in a `BEGIN IMMEDIATE` transaction.

WAL's index is memory that the processes of one machine share. What workers of several machines write together asks for
the older rollback journal (`shared_by_machines`), which needs no more of a network's file system than locks that hold.

A read-then-append in a deferred transaction fails at once with "database is locked" when another process writes in
between; appending to a hash chain is exactly that. An immediate transaction waits for its turn instead.
`synchronous=FULL`: what was committed is on the disk, because bytes leave the hospital on the strength of it.
Only a simulation in one process does without (`site_node/durable.py`, `kept_as`).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from site_node.durable import keeping
from site_node.errors import DatabaseError

BUSY_SECONDS = 30.0


@contextmanager
def connection(path: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """Open a database, making its tables if they are missing, and close it at the end."""
    opened = connect(path, schema)
    try:
        yield opened
    finally:
        opened.close()


def connect(
    path: Path, schema: str, *, any_thread: bool = False, shared_by_machines: bool = False
) -> sqlite3.Connection:
    """Open a database with rows by name; `schema` is a script of CREATE ... IF NOT EXISTS.

    Raises: DatabaseError if the file is missing its folder, damaged or not ours to write.
    """
    try:
        opened = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=not any_thread)
        opened.row_factory = sqlite3.Row
        opened.execute(f"PRAGMA journal_mode = {'DELETE' if shared_by_machines else 'WAL'}")
        opened.execute(f"PRAGMA synchronous = {'FULL' if keeping().synced else 'OFF'}")
        opened.execute("PRAGMA foreign_keys = ON")
        opened.executescript(schema)
    except sqlite3.Error as error:
        remedy = "Check that its folder exists on a local disk and belongs to this user."
        raise DatabaseError(f"The database {path} cannot be opened: {error}.", remedy) from error
    return opened


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Do everything inside or nothing of it. Not reentrant: SQLite refuses a transaction within one."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
