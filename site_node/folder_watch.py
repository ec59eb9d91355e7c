"""Wake a process when a file appears in one of its folders: at once on Linux, by looking often elsewhere.

The processes of a site speak by renaming finished files into folders (`durable.py`), so that one kind of event says
all: something was moved in. The kernel's own queue (inotify) tells it without delay and costs nothing while it waits.
A wake-up too many costs a look into folders; one that is lost costs the rest of the wait, after which everybody looks.
Source: Linux manual, inotify(7).
"""

import ctypes
import os
import select
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

MOVED_IN = 0x00000080
NONBLOCK, CLOSE_ON_EXEC = os.O_NONBLOCK, getattr(os, "O_CLOEXEC", 0)
QUEUE_BYTES = 64 << 10
LOOK_SECONDS = 0.1  # how often the wish to stop is looked at; and, without inotify, the folders


class FolderWatch:
    """Watches folders, not what lies deeper in them.

    Raises: OSError if a folder is missing, or the system has no watch left.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._queue: int | None = None
        if not sys.platform.startswith("linux"):
            return
        library = ctypes.CDLL(None, use_errno=True)
        self._queue = _checked(library.inotify_init1(NONBLOCK | CLOSE_ON_EXEC))
        try:
            for folder in folders:
                _checked(library.inotify_add_watch(self._queue, os.fsencode(folder), MOVED_IN))
        except OSError:
            self.close()
            raise

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Return once something was moved in since the last call, the time is over, or the process is to stop."""
        until = time.monotonic() + seconds
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            if self._came(min(left, LOOK_SECONDS), stop):
                return

    def close(self) -> None:
        """Stop watching."""
        if self._queue is not None:
            os.close(self._queue)
            self._queue = None

    def __enter__(self) -> Self:
        """Return this watch."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop watching."""
        self.close()

    def _came(self, seconds: float, stop: threading.Event) -> bool:
        if self._queue is None:
            stop.wait(seconds)
            return True
        if not select.select([self._queue], [], [], seconds)[0]:
            return False
        os.read(self._queue, QUEUE_BYTES)  # who looks into the folders needs no names
        return True


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
