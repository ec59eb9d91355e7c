"""How updates are joined into one: an interface, and its plain case, the weighted mean.

`prepare` may read the updates' files once or more, and makes of them a few numbers; what it returns is then called on
each window of values. So a joining needs no more memory than a window, however many files there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hub.aggregation.chunks import Window
from hub.aggregation.gathering import Gathered, Values
from hub.aggregation.weighted_mean import weighted_mean


class Joined(Protocol):
    """The joined update, window by window."""

    def __call__(self, updates: Window, /) -> Values:
        """Return the joined values of a window of all updates.

        Shapes: updates (site, value) float32; result (value,) float64.
        """


class Joining(Protocol):
    """A rule that makes one update of a round's."""

    def prepare(self, gathered: Gathered) -> Joined:
        """Return the round's joined update.

        Guarantee: a function of the round alone, the same to the bit wherever it is computed.
        Raises: AggregationError if these updates cannot be joined so.
        """


class Weighting(Protocol):
    """A rule that says what each update of a round weighs."""

    def weights_of(self, gathered: Gathered) -> Sequence[float]:
        """Return one weight for each update; only their ratios matter."""


@dataclass(frozen=True)
class LinearJoin:
    """A joined update that is sum(weight x factor x update) / sum(weight)."""

    weights: tuple[float, ...]
    factors: tuple[float, ...]

    def __call__(self, updates: Window, /) -> Values:
        """Return the mean of a window."""
        return weighted_mean(updates, self.weights, self.factors)

    @property
    def shares(self) -> tuple[float, ...]:
        """Return the weights, made to sum to one."""
        total = sum(self.weights)
        return tuple(weight / total for weight in self.weights)


@dataclass(frozen=True)
class Mean:
    """The weighted mean; McMahan et al. 2017, arXiv:1602.05629, Algorithm 1."""

    weighting: Weighting

    def prepare(self, gathered: Gathered) -> LinearJoin:
        """Return the round's mean; see `Joining.prepare`."""
        return LinearJoin(tuple(self.weighting.weights_of(gathered)), gathered.factors)
