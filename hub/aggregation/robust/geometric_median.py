"""The geometric median: the point whose weighted distances to all updates have the least sum.

It is a mean of the updates with other weights, so that all that is needed of them are their inner products: two
readings of the files, and the rest is arithmetic of a matrix (site, site). The iteration is Weiszfeld's: from a point,
weigh each update by a_i / |d_i - point| and take the mean. Where the point is one of the updates, which stops plain
Weiszfeld wherever it is, Vardi and Zhang's step leaves it unless it is the median. It begins at the medoid, the update
with the least sum of distances; the sum is convex, so that the start does not change where it ends.
Guarantee: while wild updates have less than half of the weight, the result stays near the others.
Source: Pillutla, Kakade and Harchaoui 2022, arXiv:1912.13445 (RFA); Vardi and Zhang 2000, PNAS 97(4), 1423-1426.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hub.aggregation.gathering import Gathered
from hub.aggregation.joining import LinearJoin, Weighting
from hub.aggregation.robust.distances import Pairs, inner_products, squared_distances
from hub.aggregation.robust.enough import check_enough
from protocol.strategy_rules import NEEDS

MOST_ITERATIONS = 1000
SMALLEST_STEP = 1e-7
"""A step shorter than this part of the updates' mean distance is the last."""
SAME_POINT = 1e-9
"""An update nearer than this part of that distance is where the point is."""
Shares = NDArray[np.float64]
"""(site,) float64: what each update counts in a point; they sum to one."""


@dataclass(frozen=True)
class GeometricMedian:
    """The joining, with any weighting."""

    weighting: Weighting

    def prepare(self, gathered: Gathered) -> LinearJoin:
        """Return the round's geometric median as a mean with other weights; see `Joining.prepare`."""
        check_enough("geometric-median", gathered, NEEDS["geometric-median"](0))
        weights = np.asarray(self.weighting.weights_of(gathered), np.float64)
        start = medoid(squared_distances(gathered), weights)
        found = geometric_median(inner_products(gathered, start), weights, start)
        return LinearJoin(tuple(float(share) for share in found), gathered.factors)


def medoid(distances: Pairs, weights: Sequence[float] | Shares) -> int:
    """Return the update with the least weighted sum of distances to the others; the first, of several.

    Shapes: distances (site, site), squared.
    """
    sums = np.add.reduce(np.sqrt(distances) * np.asarray(weights), axis=1)
    return int(np.argmin(sums))


def geometric_median(products: Pairs, weights: Shares, start: int) -> Shares:
    """Return the geometric median as shares of the updates.

    `products` are the updates' inner products, taken from the update `start`.
    """
    shares = np.zeros(len(weights))
    shares[start] = 1.0
    lengths = np.sqrt(np.maximum(np.diagonal(products), 0.0))
    scale = math.fsum(np.minimum(lengths, 2 * float(np.median(lengths))) * weights) / math.fsum(weights)
    for _ in range(MOST_ITERATIONS):
        following = _following(products, weights, shares, SAME_POINT * scale)
        step = _length(products, following - shares)
        shares = following
        if step <= SMALLEST_STEP * scale:
            break
    return shares


def _following(products: Pairs, weights: Shares, shares: Shares, same: float) -> Shares:
    distances = _distances(products, shares)
    there = distances <= same
    if there.all():
        return shares
    pulls = np.where(there, 0.0, weights / np.where(there, 1.0, distances))
    drawn: Shares = pulls / np.add.reduce(pulls)
    if not there.any():
        return drawn
    # At an update: its own weight holds the point, the others' pull (a force) moves it, if it is the stronger.
    force = float(np.add.reduce(pulls)) * _length(products, drawn - shares)
    holds = math.fsum(weights[there])
    stays = 1.0 if force <= holds else holds / force
    moved: Shares = (1.0 - stays) * drawn + stays * shares
    return moved


def _distances(products: Pairs, shares: Shares) -> Shares:
    """Return each update's distance from a point.

    Shapes: result (site,).
    """
    towards = np.add.reduce(products * shares, axis=1)
    own = float(np.add.reduce(towards * shares))
    squares: Shares = np.maximum(np.diagonal(products) - 2 * towards + own, 0.0)
    return np.sqrt(squares)


def _length(products: Pairs, change: Shares) -> float:
    return math.sqrt(max(0.0, float(np.add.reduce(np.add.reduce(products * change, axis=1) * change))))
