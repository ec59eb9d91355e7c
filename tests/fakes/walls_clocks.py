"""Clocks that are wrong: a process sees the time of day that a file says, and the file may change while it runs.

libfaketime stands between the process and the C library (Debian: libfaketime). Only the time of day is changed; the
monotonic clock, by which a process waits, goes on as it does when an administrator sets the clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = "/usr/lib"


@dataclass(frozen=True)
class Clock:
    """One clock, for all processes that are started with its variables."""

    path: Path

    def set_ahead(self, seconds: float) -> None:
        """Let it be so many seconds ahead of the true time, or behind if negative."""
        unfinished = self.path.with_suffix(".new")
        unfinished.write_text(f"{seconds:+.0f}\n")
        unfinished.replace(self.path)

    def variables(self) -> Mapping[str, str]:
        """Return what a process needs in its environment to go by this clock."""
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self.path),
            "FAKETIME_NO_CACHE": "1",  # all processes of a machine see its clock set in the same moment
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


def library() -> Path | None:
    """Return where libfaketime lies, None if it is not installed."""
    return next(iter(sorted(Path(LIBRARIES).glob("*/faketime/libfaketimeMT.so.1"))), None)
