"""Shared-noise DP-SGD at the hub: the joined update is -learning rate x noised mean gradient.

The sites send no trained weights but parts of one step, and the mean that is opened is the gradient of the whole
federation: clipped sums over the drawn patients with the noise of one curator, divided by the expected number of
patients drawn at the sites that answered. All that is done with it is post-processing, by whichever server's step the
study names. The learning rate follows the study's schedule over the rounds.
Source: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1, with Agarwal, Kairouz and Liu 2021, arXiv:2110.04995.
"""

from dataclasses import dataclass

from hub.aggregation.gathering import Gathered
from hub.aggregation.joining import LinearJoin, Mean
from hub.aggregation.weighting import AsSent
from protocol.schedule import learning_rate_of
from protocol.study import StudySpec


@dataclass(frozen=True)
class NoisedDescent:
    """The joining of a study with shared noise."""

    study: StudySpec

    def prepare(self, gathered: Gathered) -> LinearJoin:
        """Return the step down the gradient; see `Joining.prepare`."""
        rate = learning_rate_of(self.study, gathered.state.step + 1)
        return Mean(AsSent()).prepare(gathered.scaled([-rate] * len(gathered.updates)))
