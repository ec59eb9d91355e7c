"""What lies in the folders against what the index holds, side by side in temporary tables: memory stays bounded.

New and changed files are told in windows; files that are gone leave the index, but those of a mount that is away stay:
a share that cannot be reached is not a deletion. A mount is known to be away if its folder was a mount point when its
files were indexed and is none any more, if a whole root is missing or empty, or if a folder cannot be opened.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from site_node.cohort.annotation_table import forget_annotations
from site_node.dicom.folder import FoundFile
from site_node.file_names import stored
from site_node.sqlite import transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS mounts (path PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS found (path PRIMARY KEY, size INTEGER, mtime_ns INTEGER, problem TEXT) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS fresh (
    number INTEGER PRIMARY KEY, path, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, problem TEXT);
CREATE TEMP TABLE IF NOT EXISTS gone (path PRIMARY KEY) WITHOUT ROWID;
"""
WINDOW_FILES = 5000


class IndexChanges:
    """One comparison; its tables are emptied when the next begins."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(SCHEMA)
        for table in ("found", "fresh", "gone"):
            database.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names

    def note(self, files: Iterable[FoundFile]) -> int:
        """Note what lies in a folder and return how many files it was."""
        number, remaining = 0, iter(files)
        while window := list(islice(remaining, WINDOW_FILES)):
            rows = [(stored(str(file.path)), file.size, file.mtime_ns, file.problem) for file in window]
            with transaction(self._database) as database:
                database.executemany("INSERT OR REPLACE INTO found VALUES (?, ?, ?, ?)", rows)
            number += len(rows)
        return number

    def files(self) -> int:
        """Return how many different files were noted."""
        return int(self._database.execute("SELECT count(*) FROM found").fetchone()[0])

    def settle(self, kept: Iterable[Path] = ()) -> None:
        """Compare; what is indexed below the folders `kept` is not gone, whatever was found."""
        with transaction(self._database) as database:
            database.execute(
                "INSERT INTO fresh (path, size, mtime_ns, problem)"
                " SELECT found.path, found.size, found.mtime_ns, found.problem"
                " FROM found LEFT JOIN files ON files.path = found.path"
                " WHERE files.path IS NULL OR found.problem IS NOT NULL"
                " OR files.size != found.size OR files.mtime_ns != found.mtime_ns ORDER BY found.path"
            )
            database.execute(
                "INSERT INTO gone SELECT path FROM files WHERE NOT EXISTS"
                " (SELECT 1 FROM found WHERE found.path = files.path)"
            )
            for folder in kept:
                database.execute(f"DELETE FROM gone WHERE {BELOW}", _below(folder))  # noqa: S608 - our own text

    def fresh_files(self) -> int:
        """Return how many files are new or changed and can be looked at."""
        return int(self._database.execute("SELECT count(*) FROM fresh WHERE problem IS NULL").fetchone()[0])

    def fresh(self) -> Iterator[list[FoundFile]]:
        """Yield the files that are new, changed, or cannot be looked at, window by window."""
        last = 0
        while rows := self._database.execute(
            "SELECT * FROM fresh WHERE number > ? ORDER BY number LIMIT ?", (last, WINDOW_FILES)
        ).fetchall():
            last = rows[-1]["number"]
            yield [FoundFile(_path(row["path"]), row["size"], row["mtime_ns"], row["problem"]) for row in rows]

    def forget_gone(self) -> int:
        """Remove the files that are gone from the index and return how many they were."""
        with transaction(self._database) as database:
            paths = [os.fsdecode(row[0]) for row in database.execute("SELECT path FROM gone")]
            forget_annotations(database, paths)
            database.execute("DELETE FROM files WHERE path IN (SELECT path FROM gone)")
        return len(paths)

    def holds_files_below(self, folder: Path) -> bool:
        """Tell whether any file of a folder is indexed."""
        query = f"SELECT 1 FROM files WHERE {BELOW} LIMIT 1"  # noqa: S608 - our own text
        return self._database.execute(query, _below(folder)).fetchone() is not None

    def lost_mounts(self, mounts: Iterable[Path], roots: Iterable[Path]) -> list[Path]:
        """Return the folders below these roots that once were mount points and are none now, and remember the new."""
        now, watched = {str(path) for path in mounts}, tuple(roots)
        known = [_path(row["path"]) for row in self._database.execute("SELECT path FROM mounts ORDER BY path")]
        lost = [path for path in known if str(path) not in now and any(path.is_relative_to(root) for root in watched)]
        with transaction(self._database) as database:
            database.executemany("INSERT OR IGNORE INTO mounts VALUES (?)", [(stored(path),) for path in now])
        return [path for path in lost if self.holds_files_below(path)]


# Paths are compared as bytes: a name that is not UTF-8 is stored as such.
BELOW = "substr(CAST(path AS BLOB), 1, length(?1)) = ?1"


def _below(folder: Path) -> tuple[bytes]:
    return (os.fsencode(folder) + b"/",)


def _path(written: str | bytes) -> Path:
    return Path(os.fsdecode(written))
