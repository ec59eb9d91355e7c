"""How long a poll waits at the hub for mail: each time another while.

A hub that posts a round's tasks wakes all hospitals at once. Were all their next waits equally long, they would also
end at once, again and again, and a thousand hospitals would come back within a moment; so each wait is drawn.
"""

import random

LONGEST_WAIT_SECONDS = 28.0
SHORTEST_WAIT_SECONDS = 18.0


def wait_seconds(chance: random.Random) -> float:
    """Return how long the next poll waits, in seconds; under the half minute that the hub allows."""
    return chance.uniform(SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
