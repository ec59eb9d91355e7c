"""The trimmed mean: of each value, the f largest and the f smallest are left out, and the rest is averaged.

Guarantee: with at most f wild updates among n > 2f, every value lies between two values that others sent.
Source: Yin et al. 2018, arXiv:1803.01498, Definition 2, with f = beta n.
"""

from dataclasses import dataclass

import numpy as np

from hub.aggregation.chunks import Window
from hub.aggregation.gathering import Gathered, Rows, Values, scaled_blocks
from hub.aggregation.joining import Joined
from hub.aggregation.robust.enough import check_enough
from protocol.strategy_rules import trimmed_mean_needs


@dataclass(frozen=True)
class TrimmedMean:
    """The joining; sites count alike."""

    wild_sites: int

    def prepare(self, gathered: Gathered) -> Joined:
        """Return the round's trimmed mean; see `Joining.prepare`."""
        factors, cut = gathered.factors, self.wild_sites
        check_enough("trimmed-mean", gathered, trimmed_mean_needs(cut))

        def joined(updates: Window) -> Values:
            return np.concatenate([_trimmed(rows, cut) for rows in scaled_blocks(updates, factors)])

        return joined


def _trimmed(rows: Rows, cut: int) -> Values:
    rows.sort(axis=0)
    kept = rows[cut : len(rows) - cut]
    total = np.zeros(rows.shape[1], np.float64)
    for row in kept:
        total += row
    return total / len(kept)
