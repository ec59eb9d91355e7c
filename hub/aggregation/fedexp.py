"""FedExp: a longer step at the hub when the updates point apart, found in every round from their lengths.

With shares p_i (sum one), updates d_i and their mean d, the weights move by

    max(1, sum of p_i |d_i|^2 / (2 (|d|^2 + eps)))

times the mean: the more the sites disagree, the shorter their mean and the more of it is taken; equal updates give 1.
The paper's p_i are 1/M, its eps is relative to the size of updates, and it judges the mean of the last two versions
(`iterate_mean.LastTwo`), because the step is long enough to swing across a valley.

Under local DP each |d_i|^2 is larger than it was by P v_i in the mean (P values, variance v_i of the noise in each,
see `weighting.py`), which would pass for disagreement: with M sites whose updates are all noise, the step would be
M/2. So the known P v_i is taken off the lengths above the line. Below it the mean's noise stays, which errs towards
shorter steps.
Source: Jhunjhunwala, Wang and Joshi 2023, arXiv:2301.09604, Algorithm 1 and equation 6; taking off the noise: Takakura,
Liew and Hasegawa 2025, arXiv:2504.09850 (LDP-FedEXP).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hub.aggregation.gathering import Gathered, Values, squared_length, squared_lengths
from hub.aggregation.joining import Joined, LinearJoin
from hub.aggregation.server_step import Arrays, Move
from hub.aggregation.weighting import noise_variance
from hub.errors import AggregationError
from protocol.study import StudySpec

EPSILON = 1e-3
"""Of the sum of squares above the line: a mean that is zero to rounding would else ask for an endless step."""


@dataclass(frozen=True)
class FedExp:
    """A step whose length follows from the updates."""

    study: StudySpec

    @property
    def arrays(self) -> Mapping[str, float]:
        """Return nothing: no array is kept."""
        return {}

    def prepare(self, gathered: Gathered, joined: Joined) -> Move:
        """Return the step; see `ServerStep.prepare`."""
        if not isinstance(joined, LinearJoin):
            raise AggregationError("FedExp compares the updates with their mean.", "Use strategy.join: mean.")
        rate = self._rate(gathered, joined)

        def take(weights: Values, update: Values, arrays: Arrays) -> tuple[Values, Arrays]:
            return weights + rate * update, {}

        return Move(take, {"server_step": rate})

    def _rate(self, gathered: Gathered, joined: LinearJoin) -> float:
        lengths = squared_lengths(gathered, joined.factors)
        spread = math.fsum(
            share * max(0.0, length - noise)
            for share, length, noise in zip(joined.shares, lengths, self._noise(gathered, joined.factors), strict=True)
        )
        return extrapolation(spread, squared_length(gathered, joined))

    def _noise(self, gathered: Gathered, factors: Sequence[float]) -> list[float]:
        """Return the squared length that its noise adds to each update, in the mean."""
        multiplier = gathered.facts.noise_multiplier
        if multiplier is None:
            return [0.0] * len(factors)
        return [
            gathered.manifest.parameters
            * factor**2
            * noise_variance(self.study, multiplier, update.weight, gathered.trained_in(update))
            for update, factor in zip(gathered.updates, factors, strict=True)
        ]


def extrapolation(mean_square: float, square_of_mean: float) -> float:
    """Return the step's length from the mean of the squared lengths and the squared length of the mean.

    >>> extrapolation(mean_square=8.0, square_of_mean=0.992)  # 8 / (2 x (0.992 + 0.001 x 8))
    4.0
    """
    below = 2.0 * (square_of_mean + EPSILON * mean_square)
    return max(1.0, mean_square / below) if below > 0 else 1.0
