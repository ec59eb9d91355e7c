"""Server momentum: m <- beta m + joined update; weights <- weights + learning rate x m.

Rounds that pull one way add up (a constant update is taken 1/(1 - beta) times as far), those that disagree cancel.
Source: Hsu, Qi and Brown 2019, arXiv:1909.06335, section 4 (FedAvgM).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hub.aggregation.gathering import Gathered, Values
from hub.aggregation.joining import Joined
from hub.aggregation.server_step import Arrays, Move

MOMENTUM = "momentum"


@dataclass(frozen=True)
class FedAvgM:
    """Gradient descent with momentum at the hub."""

    learning_rate: float
    beta: float

    @property
    def arrays(self) -> Mapping[str, float]:
        """Return the momentum, which starts at zero."""
        return {MOMENTUM: 0.0}

    def prepare(self, gathered: Gathered, joined: Joined) -> Move:
        """Return the step, which is the same in every round."""
        return Move(self._take)

    def _take(self, weights: Values, update: Values, arrays: Arrays) -> tuple[Values, Arrays]:
        momentum = self.beta * arrays[MOMENTUM] + update
        return weights + self.learning_rate * momentum, {MOMENTUM: momentum}
