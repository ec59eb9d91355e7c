"""Give freed memory back to the system, as a process does that lives for months beside others.

The GNU C library keeps a heap for each thread and, once a large block was freed, serves the next ones from these heaps,
where a small one left in between holds the whole. A hub's threads take turns with blocks of many sizes: with these
limits its memory stays what it works with. Where the C library is another, nothing is done.

A simulation wants the reverse: one process for minutes, that again and again makes arrays as large as a model. Memory
that it has once is kept for the next array; asking the system for fresh pages takes longer than adding two models.
Source: Linux manual, mallopt(3).
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -3, -4, -8
LARGE_BLOCK_BYTES = 1 << 20
ARENAS = 2
KEPT_FOR_WINDOWS_BYTES = 8 << 20
"""What stays at a heap's end: a sum's arrays, a window each, are asked for and freed a hundred times in a model."""
KEPT_BYTES = (1 << 31) - 1


def give_back_freed_memory() -> None:
    """Set the limits for this process; call it before threads are started."""
    _set(ARENA_MAX, ARENAS)
    _set(MMAP_THRESHOLD, LARGE_BLOCK_BYTES)  # fixed from now on; else it grows with what is freed
    _set(TRIM_THRESHOLD, KEPT_FOR_WINDOWS_BYTES)


def keep_freed_memory() -> None:
    """Keep up to 2 GB of what is freed for this process's next arrays; for the simulator."""
    _set(MMAP_MAX, 0)  # a block mapped by itself goes back when it is freed
    _set(TRIM_THRESHOLD, KEPT_BYTES)


def _set(limit: int, value: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    set_limit = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_limit is not None:
        set_limit(limit, value)
