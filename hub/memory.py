"""Give freed memory back to the system, as a process does that lives for months beside others.

The GNU C library keeps a heap for each thread and, once a large block was freed, serves the next ones from these heaps,
where a small one left in between holds the whole. A hub's threads take turns with blocks of many sizes: with these two
limits its memory stays what it works with. Where the C library is another, nothing is done.
Source: Linux manual, mallopt(3).
"""

import ctypes
import sys

MMAP_THRESHOLD, ARENA_MAX = -3, -8
LARGE_BLOCK_BYTES = 1 << 20
ARENAS = 2


def give_back_freed_memory() -> None:
    """Set the limits for this process; call it before threads are started."""
    if not sys.platform.startswith("linux"):
        return
    set_limit = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_limit is not None:
        set_limit(ARENA_MAX, ARENAS)
        set_limit(MMAP_THRESHOLD, LARGE_BLOCK_BYTES)  # fixed from now on; else it grows with what is freed
