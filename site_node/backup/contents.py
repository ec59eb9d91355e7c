"""What a backup holds and in which order it is read, while the site goes on running.

1. what the administrator wrote; the agent's cursor, then its mail: no letter before the cursor is missing;
2. the worker's keys and databases, and what came from the PACS; of the reading rooms first who read and saw what, then
   the rooms, then the key of their codes: each was there before what is named ahead of it;
3. the gate's keys, then its database, as of one moment: every byte that had left by then stands in its ledgers, because
   the gate commits both before anything leaves; then the payloads that it still has to send;
4. the frozen cohorts, last: each that the database names was frozen before it was named. One that was counted again
   in between is another than the database names: tasks refuse it (`training/frozen_cohort.py`).

Left out: images (the archive keeps them), leases, caches, weights, whatever the gate writes again from its database
(orders, verdicts, outbox), and SITE/mark, which must not go back (`governance/high_water.py`). The secrets of masked
rounds are erased in the copy, and the rounds have ended there: whoever opens the file later can take off no mask.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from site_node.durable import finished_files, unfinished_beside
from site_node.errors import BackupError
from site_node.settings import SitePaths

OPT_OUTS = "worker/opt_outs.sqlite"
LEASES = "worker/jobs.sqlite"
READING = "worker/reading"
"""Who read and saw what (`reading/records.py`), the rooms, and the key of their codes: of use only together."""
DATABASE = "gate/gate.sqlite"
SETTINGS = ("site.yaml", "policy.yaml", "peers.yaml", "deidentification.yaml")
ALLOWED_TOPS = (*SETTINGS, "gate", "agent", "inbox", "worker", "ingest")
BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class Item:
    """One file of a site by its place within the site's folder."""

    name: str
    is_database: bool = False


def items(paths: SitePaths, *, local_state: bool) -> Iterator[Item]:
    """Yield what belongs into a backup, in order. What comes into being meanwhile is seen when its turn comes."""
    for name in SETTINGS:
        yield from _if_there(paths, paths.root / name)
    yield from _if_there(paths, paths.transport_key, paths.agent_state)
    yield from _plain(paths, paths.inbox, ".json")
    yield from _if_there(paths, paths.noise_key)
    for folder in (paths.worker, paths.ingest):
        for path in finished_files(folder, ".sqlite"):
            item = _item(paths, path, is_database=True)
            if item.name != LEASES:
                yield item
    yield from _of_reading(paths)
    yield from _plain(paths, paths.worker_receipts, ".json")
    for path in sorted(paths.ingest.rglob("*.json")) if paths.ingest.is_dir() else ():
        yield _item(paths, path)
    yield from _if_there(paths, paths.identity_key, paths.hub_key)
    if paths.gate_database.exists():
        yield _item(paths, paths.gate_database, is_database=True)
    yield from _plain(paths, paths.gate_payloads, "")
    yield from _plain(paths, paths.frozen_cohorts, "")
    if local_state and paths.local_state.is_dir():
        yield from (_item(paths, path) for path in sorted(paths.local_state.rglob("*")) if path.is_file())


def is_allowed(name: str) -> bool:
    """Tell whether a name within a backup may be written into a site's folder. Pure.

    >>> is_allowed("gate/gate.sqlite"), is_allowed("gate/../../etc/passwd"), is_allowed("mark/egress.json")
    (True, False, False)
    """
    parts = name.split("/")
    return parts[0] in ALLOWED_TOPS and all(part not in ("", ".", "..") for part in parts) and "\\" not in name


@contextmanager
def as_of_now(path: Path) -> Iterator[Path]:
    """Yield a copy of a database as it stands at one moment, beside it and readable by nobody else; removed afterwards.

    Nobody who writes to the database waits for it: in WAL, a reader sees one state for as long as it reads.
    Source: SQLite, "Online Backup API", sqlite3_backup_step with all pages at once.
    """
    copy = unfinished_beside(path)
    copy.touch(mode=0o600)
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with (
            closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            _copy(source, target)
        yield copy
    finally:
        for leftover in (copy, *(copy.with_name(copy.name + end) for end in ("-wal", "-shm", "-journal"))):
            leftover.unlink(missing_ok=True)


def _copy(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    try:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        remedy = "If it is damaged, see the log of the process it belongs to; if the disk is full, make room beside it."
        raise BackupError(f"A database of the site cannot be copied: {error}.", remedy) from None


def _of_reading(paths: SitePaths) -> Iterator[Item]:
    folder = paths.root / READING
    yield from (_item(paths, path, is_database=True) for path in finished_files(folder, ".sqlite"))
    rooms = sorted(_plain(paths, folder / "rooms", ".json"), key=lambda item: not item.name.endswith(".study.json"))
    yield from rooms  # a room's study is its door, and was written after its cases
    yield from _plain(paths, folder, ".key")


def _item(paths: SitePaths, path: Path, *, is_database: bool = False) -> Item:
    return Item(path.relative_to(paths.root).as_posix(), is_database)


def _if_there(paths: SitePaths, *files: Path) -> Iterator[Item]:
    return (_item(paths, path) for path in files if path.is_file())


def _plain(paths: SitePaths, folder: Path, suffix: str) -> Iterator[Item]:
    return (_item(paths, path) for path in finished_files(folder, suffix) if path.is_file())
