"""How many objects came and what became of them, kept over restarts. Numbers only."""

import json
import threading
from collections import Counter
from pathlib import Path

from site_node.durable import read_up_to, write_durably

MAX_BYTES = 64 * 1024
NAMES = (
    "associations",  # let in
    "associations_refused",
    "stored",
    "repeated",  # sent again, the same bytes
    "quarantined",
    "refused_no_space",
    "commitments",  # storage commitment: requests answered
    "commitments_undelivered",
)


class Counts:
    """Counters of a listener. Safe for several threads of one process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._now = Counter(read_counts(path))
        self._written = dict(self._now)

    def add(self, name: str, number: int = 1) -> None:
        """Count something that happened."""
        if name not in NAMES:
            raise ValueError(f"{name} is not counted: choose from {', '.join(NAMES)}")
        with self._lock:
            self._now[name] += number

    def save(self) -> None:
        """Write the counters if they changed."""
        with self._lock:
            now = {name: self._now[name] for name in NAMES}
        if now != self._written:
            write_durably(self._path, json.dumps(now, indent=2).encode())
            self._written = now


def read_counts(path: Path) -> dict[str, int]:
    """Return the counters as last written; all zero if there are none, or they are damaged."""
    try:
        found = json.loads(read_up_to(path, MAX_BYTES) or b"{}")
        return {name: int(found.get(name, 0)) for name in NAMES}
    except (ValueError, TypeError, AttributeError):
        return dict.fromkeys(NAMES, 0)
