"""How files are kept: as hub and hospitals keep them, or as a simulation in one process may.

Hub and hospitals put every file on the disk before they rely on it, and digest what another process hands over, because
that process may be broken, and the power may fail. Where all of a federation is one process (`wardround simulate`),
neither buys anything: a run that the power ends is started again, and a digest that this process computed itself is the
same when it computes it once more. `Keeping` says which of the two holds. It comes down from the entry point, and
no file of settings and no option of a hub or site can name it; `tests/architecture` checks who does.
"""

import contextlib
import ctypes
import functools
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_KNOWN = 4096
BEGUN_BYTES = 4 << 20
"""Of a file that is being written, so much at a time is handed to the disk."""
SYNC_FILE_RANGE_WRITE = 2

LEFT_BEHIND_SECONDS = 86400.0
"""No process takes a day over one piece of a file; what stands still for longer was left by one that was killed."""

_Mark = tuple[int, int, int, int]


class KnownDigests:
    """The digests of files that this process itself digested while it wrote or read them.

    A file that is noted gets a time of change that no other noted file has. So a later write to it, or another file in
    its place, is seen: it has another time, is not known, and is digested like any other. A second name (a link) of a
    noted file is the same file, and known.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digests: OrderedDict[_Mark, str] = OrderedDict()
        self._last_ns = 0

    def note(self, path: Path, digest: str) -> None:
        """Remember the digest of a file that is finished; whoever calls has digested these very bytes."""
        with self._lock:
            self._last_ns = max(self._last_ns + 1, time.time_ns())
            os.utime(path, ns=(self._last_ns, self._last_ns))
            self._digests[_mark(path)] = digest
            while len(self._digests) > MOST_KNOWN:
                self._digests.popitem(last=False)

    def of(self, path: Path) -> str | None:
        """Return a file's digest, or None if this process has not digested it as it is now."""
        try:
            mark = _mark(path)
        except FileNotFoundError:
            return None
        with self._lock:
            return self._digests.get(mark)


@dataclass(frozen=True)
class Keeping:
    """`synced`: files are on the disk before they are relied on. `known`: digests that are not computed again."""

    synced: bool = True
    known: KnownDigests | None = None

    def sync(self, descriptor: int) -> None:
        """Put an open file on the disk, if files are to be."""
        if self.synced:
            os.fsync(descriptor)

    def begin_to_sync(self, descriptor: int, before: int, written: int) -> None:
        """Let the disk begin with what came since `before`, whenever `BEGUN_BYTES` are full; wait for nothing.

        `sync` promises as before, and at the end of a large file finds little left to wait for.
        Source: Linux manual, sync_file_range(2): SYNC_FILE_RANGE_WRITE starts the writing, and promises nothing.
        """
        start, end = (at // BEGUN_BYTES * BEGUN_BYTES for at in (before, written))
        if self.synced and end > start:
            _begin_to_write(descriptor, start, end - start)

    def note(self, path: Path, digest: str) -> None:
        """Remember a finished file's digest, if digests are remembered."""
        if self.known is not None:
            self.known.note(path, digest)

    def knows(self, path: Path, digest: str) -> bool:
        """Tell whether this process itself has found a file, as it is now, to have this digest."""
        return self.known is not None and self.known.of(path) == digest

    def linked(self, source: Path, target: Path, digest: str) -> bool:
        """Give a file a second name instead of a copy, if its digest is known to be this; tell whether it was done.

        Nobody writes to such a file again: what has a digest as its name, or in a signed message, never changes.
        """
        if not self.knows(source, digest):
            return False
        try:
            target.hardlink_to(source)
        except OSError:  # another disk, one without links, or a name that is taken
            return False
        return True


LASTING = Keeping()
"""As hub and hospitals keep their files."""


def in_one_process() -> Keeping:
    """Return how a simulation keeps its files: all of them are this process's, and none has to outlive a power cut."""
    return Keeping(synced=False, known=KnownDigests())


def left_behind(folder: Path, now: float) -> Iterator[Path]:
    """Yield what in a folder of unfinished files was neither written nor given a name for a day: its process is gone.

    Of several processes that share the folder none loses what it works at. `now` is in seconds since the epoch.
    """
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                found = path.lstat()
                # A name given to an old file changes when the file was last changed, not when it was last written.
                if now - max(found.st_mtime, found.st_ctime) > LEFT_BEHIND_SECONDS:
                    yield path


def _begin_to_write(descriptor: int, start: int, count: int) -> None:
    call = _sync_file_range()
    if call is not None:
        call(descriptor, ctypes.c_int64(start), ctypes.c_int64(count), SYNC_FILE_RANGE_WRITE)


@functools.cache
def _sync_file_range() -> Callable[..., object] | None:
    return getattr(ctypes.CDLL(None), "sync_file_range", None) if sys.platform.startswith("linux") else None


def _mark(path: Path) -> _Mark:
    found = path.stat(follow_symlinks=False)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
