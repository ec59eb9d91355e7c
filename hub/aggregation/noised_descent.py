"""The hub's step of shared-noise DP-SGD: new weights = base - learning rate x noised mean gradient.

The sites send no trained weights but parts of one step, and the mean that is opened is the gradient of the whole
federation: clipped sums over the drawn patients with the noise of one curator, divided by the expected number of
patients drawn at the sites that answered. All that is done with it is post-processing. The learning rate follows the
study's schedule over the rounds; mean and lineage of versions are those of federated averaging.
Source: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1, with Agarwal, Kairouz and Liu 2021, arXiv:2110.04995.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hub.aggregation.fedavg import FedAvg
from hub.aggregation.strategy import CountedUpdate, ServerState
from hub.registry.blobs import BlobStore
from protocol.schedule import learning_rate_of
from protocol.study import StudySpec


@dataclass(frozen=True)
class NoisedDescent:
    """The strategy of a study with shared noise."""

    study: StudySpec

    def init(self, weights: str) -> ServerState:
        """Return the state of version 0."""
        return ServerState(step=0, weights=weights)

    def apply(self, state: ServerState, updates: Sequence[CountedUpdate], blobs: BlobStore) -> ServerState:
        """Store the next version's blobs and return the next state; see `Strategy.apply`."""
        rate = self.study.strategy.learning_rate * learning_rate_of(self.study, state.step + 1)
        return FedAvg(-rate, self.study.strategy.averaging).apply(state, updates, blobs)
