"""Federated averaging: new weights = weights + learning rate x joined update.

Source: McMahan et al. 2017, arXiv:1602.05629, Algorithm 1 (as a server step on the mean difference: Reddi et al. 2021,
arXiv:2003.00295, Algorithm 1).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hub.aggregation.gathering import Gathered, Values
from hub.aggregation.joining import Joined
from hub.aggregation.server_step import Arrays, Move


@dataclass(frozen=True)
class FedAvg:
    """The plain step; nothing is kept."""

    learning_rate: float = 1.0

    @property
    def arrays(self) -> Mapping[str, float]:
        """Return nothing: no array is kept."""
        return {}

    def prepare(self, gathered: Gathered, joined: Joined) -> Move:
        """Return the step, which is the same in every round."""
        return Move(self._take)

    def _take(self, weights: Values, update: Values, arrays: Arrays) -> tuple[Values, Arrays]:
        return weights + self.learning_rate * update, {}
