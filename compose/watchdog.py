"""End every process of a demo once the demo itself is gone: `watchdog.py MARK`, standard input a pipe from the demo.

The demo may be killed with SIGKILL, or its terminal closed. Its direct children then get the parent-death signal
(`leash.py`); this process, in a session of its own, sees the end of the pipe and ends what is left: children of
children, wherever they were reparented to. They are known by the mark, which every process of the demo carries in its
environment (`MARK_VARIABLE`) from birth. Run by path with `python -I -S`; standard library only.
"""

import os
import signal
import sys
import time
from pathlib import Path

MARK_VARIABLE = "WARDROUND_DEMO_MARK"
SWEEPS = 20
SWEEP_PAUSE_SECONDS = 0.1


def marked_processes(mark: str) -> list[int]:
    """Return the ids of all living processes born with the mark, except the caller."""
    needle = f"{MARK_VARIABLE}={mark}\0".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if needle in (folder / "environ").read_bytes() + b"\0" and not _is_zombie(folder):
                found.append(int(folder.name))
        except OSError:  # it ended meanwhile, or belongs to another user
            continue
    return found


def kill_marked(mark: str) -> int:
    """Kill all processes with the mark, again until none is left; return how many there were at first."""
    first = 0
    for sweep in range(SWEEPS):
        processes = marked_processes(mark)
        first = first or len(processes)
        if not processes:
            break
        for process in processes:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if sweep:
            time.sleep(SWEEP_PAUSE_SECONDS)
    return first


def main(mark: str) -> None:
    """Wait for the end of the pipe, then end what carries the mark."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 1024):
        pass
    kill_marked(mark)


def _is_zombie(folder: Path) -> bool:
    return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"


if __name__ == "__main__":
    main(sys.argv[1])
