"""Deadlines from measured times: how long sites usually take, and when the quorum usually has answered. Pure.

A site's usual time is the median of its last answers and three robust standard deviations more. Of the asked sites the
quickest that make the quorum count: with their slowest's usual time, and half as much again, the round may close. A
slower site never moves the deadline; a site that was seldom measured counts as if it took all the time there is.
Source: the median absolute deviation as a robust standard deviation, Rousseeuw and Croux 1993.

    >>> usual = [usual_seconds(times) for times in ([10, 10, 10], [20, 20, 20], [200, 210, 190], [])]
    >>> learned_deadline(usual, needed=2, longest=3600.0)
    30.0
"""

import math
from collections.abc import Sequence
from statistics import median

FEWEST_MEASURED = 3
LAST_MEASURED = 9
"""A site that has become slower or faster is known as such after half as many answers."""
DEVIATIONS = 3.0
MAD_TO_SIGMA = 1.4826
MARGIN = 1.5
SHORTEST_SECONDS = 5.0
"""Below this, polling and queueing matter more than the work."""


def usual_seconds(measured: Sequence[float]) -> float | None:
    """Return how long a site usually takes, from its answers' seconds, oldest first; None for too few of them."""
    if len(measured) < FEWEST_MEASURED:
        return None
    last = measured[-LAST_MEASURED:]
    middle = median(last)
    deviation = median(abs(seconds - middle) for seconds in last)
    return middle + DEVIATIONS * MAD_TO_SIGMA * deviation


def learned_deadline(usual: Sequence[float | None], needed: int, longest: float) -> float:
    """Return the seconds by which `needed` of these sites usually have answered, with the margin.

    Guarantee: at most `longest`; not larger for any time of the sites that are slower than the needed ones.
    """
    times = sorted(math.inf if seconds is None else seconds for seconds in usual)
    if not 0 < needed <= len(times):
        return longest
    return min(longest, max(SHORTEST_SECONDS, MARGIN * times[needed - 1]))
