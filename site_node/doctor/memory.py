"""Memory for training jobs, and the shared memory through which a job's processes speak.

What counts is the smaller of what the machine has left and what the control group of this process allows.
Source: proc(5), /proc/meminfo; Linux "Control Group v2", memory.max and memory.current.
"""

import os
from pathlib import Path

from site_node.doctor.finding import Finding, fine, problem, warning
from site_node.settings import SiteSettings

GIB, MIB = 1 << 30, 1 << 20
NEEDED_BYTES, COMFORTABLE_BYTES = 1 * GIB, 4 * GIB
SHARED_BYTES = 64 * MIB
"""For each process of a job; a container without --shm-size has 64 MiB for all of them."""
MEMINFO, GROUP, SHARED = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/dev/shm")  # noqa: S108 - looked at only
MORE = "End other programs, raise the container's or unit's limit, or let studies ask for smaller batches."


def examine(settings: SiteSettings) -> list[Finding]:
    """Look at memory and shared memory as this user has them."""
    return [verdict_on_memory(available_here()), verdict_on_shared(*_shared(), settings.processes)]


def verdict_on_memory(available: int | None) -> Finding:
    """Say whether the memory is enough for a job. Pure."""
    if available is None:
        return warning("memory", "This machine does not tell how much memory is left.", "Look with `free -h`.")
    says = f"{available / GIB:.1f} GiB of memory are left for the worker."
    if available < NEEDED_BYTES:
        return problem("memory", f"Only {says}", MORE)
    return warning("memory", f"Only {says}", MORE) if available < COMFORTABLE_BYTES else fine("memory", says)


def verdict_on_shared(free: int | None, is_writable: bool, processes: int) -> Finding:
    """Say whether the shared memory is enough for the processes that train one round. Pure."""
    remedy = "Mount a tmpfs on /dev/shm that the worker's user may write; in a container: --shm-size 1g."
    if free is None or not is_writable:
        return problem("shared memory", "There is no shared memory that the worker's user may write.", remedy)
    says = f"{free / MIB:.0f} MiB of shared memory are free for {processes} training process(es)."
    too_small = free < SHARED_BYTES * processes
    return warning("shared memory", f"Only {says}", remedy) if too_small else fine("shared memory", says)


def available_bytes(meminfo: str | None, group_limit: str | None, group_used: str | None) -> int | None:
    r"""Return the bytes that are left, by the machine and by the control group; None if neither tells. Pure.

    >>> available_bytes("MemTotal: 8 kB\nMemAvailable: 4 kB\n", "3000\n", "1000\n")
    2000
    >>> available_bytes("MemAvailable: 4 kB\n", "max\n", None)
    4096
    """
    lines = [line.split() for line in (meminfo or "").splitlines()]
    figures = [int(words[1]) * 1024 for words in lines if words[:1] == ["MemAvailable:"]]
    if group_limit and group_limit.strip().isdecimal():
        figures.append(int(group_limit) - int(group_used or 0))
    return max(0, min(figures)) if figures else None


def available_here() -> int | None:
    """Return the bytes of memory that this process may still take; None if this machine does not tell."""
    return available_bytes(_text(MEMINFO), _text(GROUP / "memory.max"), _text(GROUP / "memory.current"))


def _shared() -> tuple[int | None, bool]:
    try:
        found = os.statvfs(SHARED)
    except OSError:
        return None, False
    return found.f_bavail * found.f_frsize, os.access(SHARED, os.W_OK)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
