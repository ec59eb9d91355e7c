"""When sites last called: kept in memory, and written for all of them together, because they call all the time."""

import threading
from collections.abc import Mapping

WRITTEN_EVERY_SECONDS = 10.0


class LastSeen:
    """One process's memory of when each site called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[str, float] = {}
        self._written_at = float("-inf")

    def note(self, site: str, now: float) -> Mapping[str, float] | None:
        """Note a call; if the last writing was a while ago, return all that were noted since, to be written."""
        with self._lock:
            self._times[site] = now
            if 0 <= now - self._written_at < WRITTEN_EVERY_SECONDS:  # below 0: the clock was set back
                return None
            times, self._times, self._written_at = self._times, {}, now
        return times
