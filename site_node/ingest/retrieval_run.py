"""A run put together from a site's settings: its folders, its journal, the one lock, and the receipt that is kept."""

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from site_node.durable import write_durably
from site_node.errors import SettingsError
from site_node.ingest.intake import Room
from site_node.ingest.listener_paths import ListenerPaths
from site_node.ingest.pacs import Pacs
from site_node.ingest.retrieval_journal import RetrievalJournal
from site_node.ingest.retrieval_receipt import Receipt
from site_node.ingest.retrieving import Progress, Retrieval, StoppedError
from site_node.ingest.shelf import Shelf
from site_node.ingest.wanted import Wanted
from site_node.listener_settings import ListenerSettings
from site_node.settings import SitePaths, SiteSettings

MEGABYTE = 1 << 20


class WallClock:
    """The machine's own clock; `stop` ends any rest."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def monotonic(self) -> float:
        """Return seconds from some start."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the local time."""
        return datetime.now()

    def rest(self, seconds: float) -> None:
        """Sleep until it is over or the run is to stop."""
        if self._stop.wait(seconds) if seconds > 0 else self._stop.is_set():
            raise StoppedError


def journal_path(paths: SitePaths) -> Path:
    """Return where a site's journal of fetching is."""
    return paths.ingest / "retrieval.sqlite"


def retrieve_once(
    settings: SiteSettings,
    pacs: Pacs,
    wanted: Wanted,
    stop: threading.Event,
    progress: Progress,
    *,
    wait_for_hours: bool = True,
    again: bool = False,
) -> Receipt:
    """Fetch what is wanted into the site's folder of received images, and keep a receipt beside the journal.

    Raises: SettingsError if site.yaml names no PACS, or another run of this site is at it.
    """
    if settings.pacs is None:
        raise SettingsError("site.yaml names no PACS.", "Write a block pacs with host or url into it.")
    own = settings.paths.ingest
    own.mkdir(parents=True, exist_ok=True)
    with _alone(own / "retrieval.lock"):
        journal = RetrievalJournal(journal_path(settings.paths))
        try:
            run = Retrieval(
                settings.pacs, pacs, journal, _shelf(settings), WallClock(stop), progress, wait_for_hours, again
            )
            ended = run.run(wanted)
            receipt = Receipt(ended, journal.entries(ended.run))
        finally:
            journal.close()
        kept = own / "receipts" / f"{ended.run:06}.json"
        kept.parent.mkdir(exist_ok=True)
        write_durably(kept, json.dumps(receipt.as_json(), indent=2).encode())
    return receipt


def _shelf(settings: SiteSettings) -> Shelf:
    limits, folders = settings.listener or ListenerSettings(), ListenerPaths.of(settings.paths)
    arriving = settings.paths.ingest / "arriving"
    room = Room(arriving, limits.min_free_mb * MEGABYTE, limits.max_object_mb * MEGABYTE)
    return Shelf.at(folders.images, folders.quarantine, room, "pacs")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingsError("Images are being fetched for this site already.", "Wait for it, or stop it.") from None
        yield
