"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable

LONGEST_SECONDS = 60.0
"""Generous: a machine that runs other tests is slow, and only a test that fails waits so long."""


def until(condition: Callable[[], bool], seconds: float = LONGEST_SECONDS) -> None:
    """Return once the condition holds; fail the test if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what the test waits for did not happen"
        time.sleep(0.02)
