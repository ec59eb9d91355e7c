"""The database: SQLite (WAL) or PostgreSQL, behind two context managers that mean the same on both.

Writers come one after the other, from their begin to their commit: on SQLite by `BEGIN IMMEDIATE` (a transaction that
reads first and then writes would otherwise fail at once with "database is locked" whenever another writer came between,
and appending to the audit chain is exactly that), on PostgreSQL by one advisory lock. Readers wait for nobody.
PostgreSQL lets writers in as they came. SQLite has no queue but looks again after pauses of up to 100 ms: the writers
of one process wait for each other here before they ask.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

__all__ = ["Connection", "DBAPIError", "Database", "Session", "lacked_room", "text"]

BUSY_TIMEOUT_SECONDS = 30
POOL_CONNECTIONS, MORE_CONNECTIONS = 10, 14
LOOKING_CONNECTIONS = 2
TRUSTED_SECONDS = 5.0
"""A connection that was used within this time is not tried before its next use: under load each answer counts."""
_NO_ROOM = "53100"  # PostgreSQL's disk_full
_WRITERS_LOCK = 0x7761726472  # any fixed number; it names the lock among PostgreSQL's advisory locks


class Database:
    """One engine for a process; sessions are short and never shared between threads.

    What is committed outlives a power cut, unless a simulation's SQLite file is not `synced`.
    """

    def __init__(self, url: str, *, synced: bool = True) -> None:
        self.url = url
        is_sqlite = url.startswith("sqlite")
        self.engine = _sqlite_engine(url, synced) if is_sqlite else _postgresql_engine(url)
        self._writer = self.engine.execution_options(wardround_writer=True)
        self._reader = _reader(self.engine)
        self._looker = self.engine if is_sqlite else _postgresql_engine(url, alone=True)
        self._turn: AbstractContextManager[object] = threading.RLock() if is_sqlite else nullcontext()

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Give a session whose changes are committed together, or not at all if the block raises."""
        with self._turn, Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session on one consistent state of the database; nothing in it is ever committed."""
        with Session(self._reader, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def looking(self) -> Iterator[Connection]:
        """Give a connection whose statements each see the newest state: for the few looks that all callers wait for.

        It costs a quarter of a reading session: no objects, and on PostgreSQL no answers that begin and end.
        """
        with self._looker.connect() as connection:
            yield connection

    @contextmanager
    def writing_connection(self) -> Iterator[Connection]:
        """Give a connection in a writing transaction, for the migrations."""
        with self._turn, self._writer.begin() as connection:
            yield connection

    def ping(self) -> None:
        """Ask the database for one row."""
        with self.engine.connect() as connection:
            connection.execute(text("select 1"))

    def close(self) -> None:
        """Close all connections; those that a thread still uses are closed when it gives them back."""
        for engine in {self.engine, self._looker}:
            if engine.dialect.name == "postgresql":
                event.listen(engine.pool, "checkin", _close)
            engine.dispose()


def lacked_room(error: DBAPIError) -> bool:
    """Tell whether the database failed for want of room on its disk."""
    full = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return full or getattr(error.orig, "sqlstate", None) == _NO_ROOM


def _postgresql_engine(url: str, *, alone: bool = False) -> Engine:
    """Return an engine; with `alone` each statement is a transaction of its own, over a few connections."""
    # People write postgresql://; without a driver's name SQLAlchemy would look for one that we do not install.
    address = url.replace("postgresql://", "postgresql+psycopg://", 1)
    pool, more = (LOOKING_CONNECTIONS, LOOKING_CONNECTIONS) if alone else (POOL_CONNECTIONS, MORE_CONNECTIONS)
    options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if alone else {}
    engine = create_engine(address, hide_parameters=True, pool_size=pool, max_overflow=more, **options)
    if not alone:
        event.listen(engine, "begin", _begin_postgresql)
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", lambda connection, record, _: _try_if_idle(engine.dialect, connection, record))
    return engine


def _reader(engine: Engine) -> Engine:
    """Return the engine of reading sessions: on PostgreSQL their kind is part of the statement that begins them."""
    if engine.dialect.name != "postgresql":
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _close(connection: Any, _record: Any) -> None:
    if connection is not None:
        connection.close()


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used_at"] = time.monotonic()


def _try_if_idle(dialect: Dialect, connection: Any, record: Any) -> None:
    """Try a connection that was idle for a while: a server that was restarted meanwhile has closed it.

    Raises: InvalidatePoolError, on which the pool opens others.
    """
    used_at = record.info.get("used_at")
    if used_at is None or time.monotonic() - used_at < TRUSTED_SECONDS:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error


def _begin_postgresql(connection: Connection) -> None:
    if _is_writer(connection):
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({_WRITERS_LOCK})")


def _sqlite_engine(url: str, synced: bool) -> Engine:
    options: dict[str, Any] = {
        "hide_parameters": True,
        "connect_args": {"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    }
    if url in ("sqlite://", "sqlite:///:memory:"):
        options["poolclass"] = StaticPool  # one connection, else each would see its own empty database
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _prepare_sqlite if synced else _prepare_unsynced_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN is deferred; ours is in _begin_sqlite
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_unsynced_sqlite(connection: Any, record: Any) -> None:
    _prepare_sqlite(connection, record)
    connection.execute("PRAGMA synchronous=OFF")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if _is_writer(connection) else "BEGIN")


def _is_writer(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("wardround_writer", False))
