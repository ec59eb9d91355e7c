"""The database: SQLite (WAL) or PostgreSQL, behind two context managers that mean the same on both.

Writers come one after the other, from their begin to their commit: on SQLite by `BEGIN IMMEDIATE` (a transaction that
reads first and then writes would otherwise fail at once with "database is locked" whenever another writer came between,
and appending to the audit chain is exactly that), on PostgreSQL by one advisory lock. Readers wait for nobody.

    >>> database = Database("sqlite://")
    >>> with database.reading() as session:
    ...     session.scalar(text("select 1"))
    1
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

__all__ = ["DBAPIError", "Database", "Session", "lacked_room", "text"]

BUSY_TIMEOUT_SECONDS = 30
POOL_CONNECTIONS = 10
_NO_ROOM = "53100"  # PostgreSQL's disk_full
_WRITERS_LOCK = 0x7761726472  # any fixed number; it names the lock among PostgreSQL's advisory locks


class Database:
    """One engine for a process; sessions are short and never shared between threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _sqlite_engine(url) if url.startswith("sqlite") else _postgresql_engine(url)
        self._writer = self.engine.execution_options(wardround_writer=True)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Give a session whose changes are committed together, or not at all if the block raises."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session on one consistent state of the database; nothing in it is ever committed."""
        with Session(self.engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def writing_connection(self) -> Iterator[Connection]:
        """Give a connection in a writing transaction, for the migrations."""
        with self._writer.begin() as connection:
            yield connection

    def ping(self) -> None:
        """Ask the database for one row."""
        with self.engine.connect() as connection:
            connection.execute(text("select 1"))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def lacked_room(error: DBAPIError) -> bool:
    """Tell whether the database failed for want of room on its disk."""
    full = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return full or getattr(error.orig, "sqlstate", None) == _NO_ROOM


def _postgresql_engine(url: str) -> Engine:
    # People write postgresql://; without a driver's name SQLAlchemy would look for one that we do not install.
    address = url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(
        address, pool_pre_ping=True, hide_parameters=True, pool_size=POOL_CONNECTIONS, max_overflow=POOL_CONNECTIONS
    )
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _begin_postgresql(connection: Connection) -> None:
    if _is_writer(connection):
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({_WRITERS_LOCK})")
    else:
        connection.exec_driver_sql("set transaction isolation level repeatable read, read only")


def _sqlite_engine(url: str) -> Engine:
    options: dict[str, Any] = {
        "hide_parameters": True,
        "connect_args": {"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    }
    if url in ("sqlite://", "sqlite:///:memory:"):
        options["poolclass"] = StaticPool  # one connection, else each would see its own empty database
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN is deferred; ours is in _begin_sqlite
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if _is_writer(connection) else "BEGIN")


def _is_writer(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("wardround_writer", False))
