"""How long to wait before asking a hub again that was away: longer each time, and never all sites at once."""

import random
from dataclasses import dataclass

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
MAX_DOUBLINGS = 10


@dataclass
class Backoff:
    """Counts failures; full jitter spreads the sites (Brooker 2015, "Exponential Backoff and Jitter")."""

    failures: int = 0

    def failed(self) -> float:
        """Note a failure and return the seconds to wait."""
        ceiling: float = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(self.failures, MAX_DOUBLINGS))
        self.failures += 1
        return ceiling / 2 + random.uniform(0, ceiling / 2)  # noqa: S311 - no secret

    def succeeded(self) -> bool:
        """Note a success and tell whether it ended a time of failures."""
        was_away, self.failures = self.failures > 0, 0
        return was_away
