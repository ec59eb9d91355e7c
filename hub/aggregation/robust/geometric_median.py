"""The geometric median: the point whose weighted distances to all updates have the least sum.

Smoothed Weiszfeld: from a point v, weigh each update by a_i / max(nu, |d_i - v|) and take the mean; again, and again.
The iteration starts at the coordinate median and not at the mean, so that wild updates, however far off, do not have
to be walked away from first; the sum is convex, so that the start does not change where it ends. Each iteration is one
reading of the files; their number is fixed.
Guarantee: while wild updates have less than half of the weight, the result stays near the others.
Source: Pillutla, Kakade and Harchaoui 2022, arXiv:1912.13445, Algorithm 2 (RFA).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hub.aggregation.gathering import Gathered, squared_lengths
from hub.aggregation.joining import Joined, LinearJoin, Weighting
from hub.aggregation.robust.median import Median

ITERATIONS = 8
SMOOTHING = 1e-6
"""nu: below this distance an update counts no more than at it."""


@dataclass(frozen=True)
class GeometricMedian:
    """The joining, with any weighting."""

    weighting: Weighting

    def prepare(self, gathered: Gathered) -> LinearJoin:
        """Return the round's geometric median as a mean with other weights; see `Joining.prepare`."""
        weights = tuple(self.weighting.weights_of(gathered))
        point = _nearer(gathered, weights, Median().prepare(gathered))
        for _ in range(ITERATIONS - 1):
            point = _nearer(gathered, weights, point)
        return point


def _nearer(gathered: Gathered, weights: Sequence[float], point: Joined) -> LinearJoin:
    """Return the mean under weights that fall with the distance from a point."""
    distances = (math.sqrt(square) for square in squared_lengths(gathered, gathered.factors, point))
    pairs = zip(weights, distances, strict=True)
    return LinearJoin(tuple(weight / max(SMOOTHING, distance) for weight, distance in pairs), gathered.factors)
