"""Adaptive steps at the hub: FedAdagrad, FedAdam and FedYogi. Each weight has its own rate, from its updates so far.

With d the joined update, m the momentum and v the second moment (m = 0 and v = tau^2 at first, no bias correction):

    m <- beta1 m + (1 - beta1) d
    v <- v + d^2                                    FedAdagrad
    v <- v - (1 - beta2) d^2 sign(v - d^2)          FedYogi
    v <- beta2 v + (1 - beta2) d^2                  FedAdam
    weights <- weights + learning rate x m / (sqrt(v) + tau)

So a weight moves by about the learning rate a round, however small its updates are, down to the size of tau.
Source: Reddi et al. 2021, arXiv:2003.00295, Algorithm 2.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hub.aggregation.fedavgm import MOMENTUM
from hub.aggregation.gathering import Gathered, Values
from hub.aggregation.joining import Joined
from hub.aggregation.server_step import Arrays, Move

SECOND_MOMENT = "second_moment"

SecondMoment = Callable[[Values, Values, float], Values]
"""From v, d^2 and beta2 to the next v."""


def adagrad(moment: Values, square: Values, beta2: float) -> Values:
    """Return FedAdagrad's second moment, which only grows; beta2 has no part in it."""
    return moment + square


def adam(moment: Values, square: Values, beta2: float) -> Values:
    """Return FedAdam's second moment, an exponential mean."""
    return beta2 * moment + (1.0 - beta2) * square


def yogi(moment: Values, square: Values, beta2: float) -> Values:
    """Return FedYogi's second moment, which nears d^2 by steps of its size: it forgets large updates slowly."""
    return moment - (1.0 - beta2) * square * np.sign(moment - square)


@dataclass(frozen=True)
class FedOpt:
    """An adaptive step; `second_moment` is what tells the three apart."""

    second_moment: SecondMoment
    learning_rate: float
    beta1: float
    beta2: float
    tau: float

    @property
    def arrays(self) -> Mapping[str, float]:
        """Return momentum and second moment, with what they start from."""
        return {MOMENTUM: 0.0, SECOND_MOMENT: self.tau**2}

    def prepare(self, gathered: Gathered, joined: Joined) -> Move:
        """Return the step, which is the same in every round."""
        return Move(self._take)

    def _take(self, weights: Values, update: Values, arrays: Arrays) -> tuple[Values, Arrays]:
        momentum = self.beta1 * arrays[MOMENTUM] + (1.0 - self.beta1) * update
        moment = self.second_moment(arrays[SECOND_MOMENT], update * update, self.beta2)
        moved = weights + self.learning_rate * momentum / (np.sqrt(moment) + self.tau)
        return moved, {MOMENTUM: momentum, SECOND_MOMENT: moment}
