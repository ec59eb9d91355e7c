"""How one site's update lies to the others', and to its own of the round before: cosines, chunk by chunk.

    agreement   between a site's update and the weighted mean of the others': 1 where they point the same way, 0 where
                they have nothing in common (or noise has drowned it), below where they pull apart
    trend       between a site's update and its last one, if that went into the version before: above 0 while steps
                still lead on, below once they swing across the valley, which asks for smaller ones

Both are functions of what arrived, noised already; nothing more is asked of a site. Noise shortens both towards 0, more
for a hospital with fewer patients.
Sources: Yin et al. 2018, arXiv:1706.05699 (gradient diversity); Baydin et al. 2018, arXiv:1703.04782 (hypergradient:
the derivative of the loss by the learning rate is the inner product of two steps).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hub.aggregation.chunks import side_by_side
from protocol.manifest import Manifest

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Sent:
    """A site's update of this round, what it weighs, and the file of its last one, if there is one."""

    site: str
    path: Path
    weight: float
    before: Path | None = None


@dataclass(frozen=True)
class Course:
    """A site's two cosines; None where there is nothing to compare with."""

    agreement: float | None
    trend: float | None


def courses_of(sent: Sequence[Sent], manifest: Manifest) -> dict[str, Course]:
    """Return each site's course, in one reading of the files.

    Guarantee: the same to the bit for the same files in the same order; memory is a window.
    """
    earlier = [update.before for update in sent if update.before is not None]
    weights = [update.weight for update in sent]
    own, with_all, with_earlier, of_earlier = (np.zeros(len(sent)) for _ in range(4))
    of_all = 0.0
    for window in side_by_side([*(update.path for update in sent), *earlier], manifest):
        values = window.astype(np.float64)
        total = np.zeros(values.shape[1])
        for row, weight in zip(values, weights, strict=False):
            total += weight * row
        of_all += _product(total, total)
        following = iter(values[len(sent) :])
        for number, update in enumerate(sent):
            row = values[number]
            own[number] += _product(row, row)
            with_all[number] += _product(row, total)
            if update.before is not None:
                last = next(following)
                with_earlier[number] += _product(row, last)
                of_earlier[number] += _product(last, last)
    found: dict[str, Course] = {}
    for number, update in enumerate(sent):
        weight, square, product = update.weight, float(own[number]), float(with_all[number])
        # The others' sum is the whole less this one's part of it.
        others = of_all - 2.0 * weight * product + weight * weight * square
        agreement = cosine(product - weight * square, square, others) if len(sent) > 1 else None
        trend = cosine(float(with_earlier[number]), square, float(of_earlier[number]))
        found[update.site] = Course(agreement, None if update.before is None else trend)
    return found


def cosine(product: float, one: float, other: float) -> float:
    """Return a cosine from an inner product and two squared lengths; 0 where one is zero to rounding.

    >>> cosine(product=-6.0, one=4.0, other=9.0)
    -1.0
    """
    below = math.sqrt(max(0.0, one)) * math.sqrt(max(0.0, other))
    return min(1.0, max(-1.0, product / below)) if below > 0 else 0.0


def _product(one: Vector, other: Vector) -> float:
    # A sum by halves, which is the same on any machine; a dot product need not be.
    return float(np.add.reduce(one * other))
