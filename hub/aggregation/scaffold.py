"""SCAFFOLD at the hub: the control variate c, beside any step of the weights.

A site i that trains from x takes K steps with the learning rate eta, each corrected by c - c_i, ends at y_i, and sets
(option II of the paper) c_i+ = c_i - c + (x - y_i) / (K eta). The hub's c moves by |S|/N times the mean of c_i+ - c_i
over the sites S that answered, of N that train. Since the update d_i = y_i - x is what travels, and

    c_i+ - c_i = -c - d_i / (K eta)

holds no c_i at all, that mean follows from the mean update alone:

    c <- c + |S|/N x (-c - d / (K eta)),    d the joined update.

So no second payload travels, the sites' own variates stay at home, and masks, encryption and DP are as they were:
c is post-processing of what is released anyway. The paper's mean counts sites alike; with other weights c is the mean
under those weights. The identity needs plain SGD at the sites: momentum or Adam would make (x - y_i) / (K eta) no mean
of gradients (`protocol/strategy_rules.py`).
Source: Karimireddy et al. 2020, arXiv:1910.06378, Algorithm 1, lines 12 to 17.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hub.aggregation.gathering import Gathered, Values
from hub.aggregation.joining import Joined
from hub.aggregation.server_step import Arrays, Move, ServerStep
from hub.aggregation.strategy import CONTROL
from hub.errors import AggregationError
from protocol.schedule import learning_rate_of
from protocol.study import StudySpec


@dataclass(frozen=True)
class Scaffold:
    """A step of the weights with the control variate beside it."""

    step: ServerStep
    study: StudySpec

    @property
    def arrays(self) -> Mapping[str, float]:
        """Return the inner step's arrays and the control variate, which starts at zero."""
        return {**self.step.arrays, CONTROL: 0.0}

    def prepare(self, gathered: Gathered, joined: Joined) -> Move:
        """Return the step; see `ServerStep.prepare`."""
        facts = gathered.facts
        if gathered.sites > facts.trainers:
            raise AggregationError("More sites answered than train in the study.", "Ask the operator.")
        inner, answered = self.step.prepare(gathered, joined), gathered.sites / facts.trainers
        path = self.study.local_steps * learning_rate_of(self.study, facts.number)

        def take(weights: Values, update: Values, arrays: Arrays) -> tuple[Values, Arrays]:
            moved, kept = inner.take(weights, update, arrays)
            control = arrays[CONTROL]
            return moved, {**kept, CONTROL: control - answered * (control + update / path)}

        return Move(take, inner.numbers)
