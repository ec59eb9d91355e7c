"""Krum and multi-Krum: the update, or the mean of those, that lie closest to the others.

The score of an update is the sum of the squared distances to its n - f - 2 nearest others. Krum takes the update with
the lowest score; multi-Krum the mean of the n - f - 2 with the lowest. Equal scores: the first in the round's order.
The distances are summed window by window, all pairs in one reading of the files.
Source: Blanchard et al. 2017, arXiv:1703.02757, section 4 (Krum, n >= 2f + 3) and 5 (multi-Krum); that the mean of
n - f - 2 still holds against f: El Mhamdi, Guerraoui and Rouault 2018, arXiv:1802.07927, section 4.
"""

import math
from dataclasses import dataclass

import numpy as np

from hub.aggregation.gathering import Gathered
from hub.aggregation.joining import LinearJoin
from hub.aggregation.robust.distances import Pairs, squared_distances
from hub.aggregation.robust.enough import check_enough
from protocol.strategy_rules import krum_needs


@dataclass(frozen=True)
class Krum:
    """The joining; `several`: multi-Krum. Sites count alike."""

    wild_sites: int
    several: bool = False

    def prepare(self, gathered: Gathered) -> LinearJoin:
        """Return the chosen update, or the mean of the chosen; see `Joining.prepare`."""
        sites = len(gathered.updates)
        check_enough("multi-krum" if self.several else "krum", gathered, krum_needs(self.wild_sites))
        nearest = sites - self.wild_sites - 2
        scores = krum_scores(squared_distances(gathered), nearest)
        # Sorting is stable: of equal scores the first is taken.
        chosen = sorted(range(sites), key=scores.__getitem__)[: nearest if self.several else 1]
        return LinearJoin(tuple(float(site in chosen) for site in range(sites)), gathered.factors)


def krum_scores(distances: Pairs, nearest: int) -> list[float]:
    """Return each update's sum of squared distances to so many nearest others.

    Shapes: distances (site, site), zero on the diagonal.
    """
    others = (sorted(np.delete(row, site)) for site, row in enumerate(distances))
    return [math.fsum(row[:nearest]) for row in others]
