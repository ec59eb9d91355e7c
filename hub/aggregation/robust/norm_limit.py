"""Norm bounding: an update longer than a multiple of the round's median length is shortened to it, then all are joined.

It takes from a wild update its strength, not its direction; under any joining.
Source: Sun et al. 2019, arXiv:1911.07963, section 4.2 (norm thresholding), with the round's median as the measure, so
that nobody has to know beforehand how long updates will be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from hub.aggregation.gathering import Gathered, squared_lengths
from hub.aggregation.joining import Joined, Joining


@dataclass(frozen=True)
class NormLimit:
    """A joining of shortened updates."""

    joining: Joining
    limit: float

    def prepare(self, gathered: Gathered) -> Joined:
        """Return the joined update of the shortened ones; see `Joining.prepare`."""
        norms = [math.sqrt(square) for square in squared_lengths(gathered, gathered.factors)]
        return self.joining.prepare(gathered.scaled(shortening(norms, self.limit)))


def shortening(norms: Sequence[float], limit: float) -> list[float]:
    """Return what each update is multiplied by.

    >>> shortening([1.0, 2.0, 16.0], limit=2.0)
    [1.0, 1.0, 0.25]
    """
    longest = limit * median(norms)
    return [1.0 if norm <= longest else longest / norm for norm in norms]
