"""Ctrl-C, SIGTERM and a closed terminal as one flag that is looked at between steps, never in the middle of one.

A handler that only sets a flag cannot lose a process between its birth and its being written down; an exception could.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):  # noqa: N818 -- not an error: the person asked for the end
    """The demo was asked to end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interruption:
    """The flag; `times` counts how often the end was asked for."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.times = 0

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """Note the wish; has the form of a signal handler."""
        self.number = number
        self.times += 1

    def check(self) -> None:
        """Raise Interrupted if the end was asked for."""
        if self.number is not None:
            raise Interrupted(self.number)


@contextmanager
def caught_signals() -> Iterator[Interruption]:
    """Turn the end signals into the flag while the block runs. Main thread only."""
    interruption = Interruption()
    before = {number: signal.signal(number, interruption.ask) for number in SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
