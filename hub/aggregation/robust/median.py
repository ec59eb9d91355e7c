"""The coordinate median: each value of the joined update is the median of the sites' values.

Guarantee: while fewer than half of the updates are wild, every value lies between two values that others sent.
Source: Yin et al. 2018, arXiv:1803.01498, Definition 1.
"""

from dataclasses import dataclass

import numpy as np

from hub.aggregation.chunks import Window
from hub.aggregation.gathering import Gathered, Values, scaled_blocks
from hub.aggregation.joining import Joined
from hub.aggregation.robust.enough import check_enough
from protocol.strategy_rules import NEEDS


@dataclass(frozen=True)
class Median:
    """The joining; sites count alike."""

    def prepare(self, gathered: Gathered) -> Joined:
        """Return the round's median; see `Joining.prepare`."""
        check_enough("median", gathered, NEEDS["median"](0))
        factors = gathered.factors

        def joined(updates: Window) -> Values:
            blocks = scaled_blocks(updates, factors)
            return np.concatenate([np.median(rows, axis=0, overwrite_input=True) for rows in blocks])

        return joined
