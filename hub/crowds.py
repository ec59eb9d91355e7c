"""Many readers woken in small groups, as fast as the loop that serves them takes it.

A round that opens concerns all hospitals at once. Were all their polls answered in one moment, they would also all come
back in one moment, each for a version and with its next poll, and everybody would wait behind everybody. The work is
the same in groups, but nobody waits for more than a few of them; a handful of hospitals is one group.
"""

import asyncio

WOKEN_AT_ONCE = 16
PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.05
# A loop that is late by this share of a pause has that much work left: it is given several times as long.
PATIENCE = 4.0


class Crowd:
    """Those whom one event loop is about to wake; used on that loop only.

    Guarantee: whoever is to be woken is, in the order in which they were named, at the latest after as many of the
        longest pauses as there are groups before theirs.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Event, None] = {}
        self._is_waking = False

    def wake(self, readers: list[asyncio.Event]) -> None:
        """Wake some readers, behind those who are still to be woken."""
        self._waiting.update(dict.fromkeys(readers))
        if not self._is_waking:
            self._wake_some(asyncio.get_running_loop().time())

    def _wake_some(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for reader in list(self._waiting)[:WOKEN_AT_ONCE]:
            del self._waiting[reader]
            reader.set()
        self._is_waking = bool(self._waiting)
        if self._is_waking:
            due = now + pause_after(now - due)
            loop.call_at(due, self._wake_some, due)


def pause_after(late_seconds: float) -> float:
    """Return how long to wait before the next group, if this one's turn came so late. Pure."""
    return min(PAUSE_SECONDS + PATIENCE * max(0.0, late_seconds), LONGEST_PAUSE_SECONDS)
