"""The hub's part of site-level privacy: the equal mean of the sites' updates, and the length for the next round.

The length is server state: it stands in the signed lineage of each version, goes out with the next round's tasks, and
follows from the bits that came with the accepted updates. All of it is post-processing of what the sites noised.
Source: Andrew et al. 2021, arXiv:1905.03871, Algorithm 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hub.aggregation.fedavg import FedAvg
from hub.aggregation.strategy import CountedUpdate, ServerState
from hub.registry.blobs import BlobStore
from protocol.site_level import next_update_norm
from protocol.study_parts import Privacy


@dataclass(frozen=True)
class AdaptiveClipping:
    """Federated averaging with a length that follows a quantile."""

    averaging: FedAvg
    privacy: Privacy

    def init(self, weights: str) -> ServerState:
        """Return the state of version 0, with the study's first length."""
        return replace(self.averaging.init(weights), update_norm=self.privacy.update_norm)

    def apply(self, state: ServerState, updates: Sequence[CountedUpdate], blobs: BlobStore) -> ServerState:
        """Store the next version's blobs and return the next state; see `Strategy.apply`."""
        norm = state.update_norm or self.privacy.update_norm
        bits = [update.uncut for update in updates if update.uncut is not None]
        following = next_update_norm(norm, bits, self.privacy.update_quantile, self.privacy.update_norm_rate)
        return replace(self.averaging.apply(state, updates, blobs), update_norm=following)
