"""What every part of the hub works with, gathered once at the entry point and handed down."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hub.auth.last_seen import LastSeen
from hub.notifications import Waker, waker_for
from hub.registry.blobs import BlobStore
from hub.settings import Settings, token_secret
from hub.storage.database import Connection, Database, Session
from protocol.signing import SigningKey

Enqueue = Callable[[str, dict[str, Any]], None]
_WAKE, _ENQUEUE = "wardround_wake", "wardround_enqueue"


@dataclass(frozen=True)
class Services:
    """Settings, stores, keys and the ways to call others."""

    settings: Settings
    database: Database
    blobs: BlobStore
    key: SigningKey
    clock: Callable[[], float]
    enqueue: Enqueue
    waker: Waker
    last_seen: LastSeen = field(default_factory=LastSeen)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Give a writing session; after its commit, and only then, wake sites and enqueue work as the block asked."""
        with self.database.transaction() as session:
            yield session
        if _WAKE in session.info:
            self.waker.wake(*sorted(session.info[_WAKE]))
        for name, arguments in session.info.get(_ENQUEUE, ()):
            self.enqueue(name, arguments)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a reading session; see `Database.reading`."""
        with self.database.reading() as session:
            yield session

    @contextmanager
    def looking(self) -> Iterator[Connection]:
        """Give a connection for single looks; see `Database.looking`."""
        with self.database.looking() as connection:
            yield connection


def wake_after_commit(session: Session, site: str) -> None:
    """Wake a site's long poll once the transaction is committed."""
    session.info.setdefault(_WAKE, set()).add(site)


def enqueue_after_commit(session: Session, name: str, arguments: dict[str, Any]) -> None:
    """Enqueue a task of the hub's worker once the transaction is committed."""
    session.info.setdefault(_ENQUEUE, []).append((name, arguments))


def open_services(settings: Settings, enqueue: Enqueue, clock: Callable[[], float] | None = None) -> Services:
    """Open the hub's stores and keys; folders and keys that are missing are made, what killed processes left goes."""
    settings.uploads.mkdir(parents=True, exist_ok=True)
    blobs = BlobStore(settings.blobs, settings.keeping)
    blobs.remove_left_behind(time.time())
    token_secret(settings)
    return Services(
        settings=settings,
        database=Database(settings.database, synced=settings.keeping.synced),
        blobs=blobs,
        key=SigningKey.load_or_create(settings.key_file),
        clock=clock or settings.clock,
        enqueue=enqueue,
        waker=waker_for(settings.redis_url),
    )
