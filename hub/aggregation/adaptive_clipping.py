"""The hub's part of site-level privacy: a strategy, and beside it the length for the next round.

The length is server state: it stands in the signed lineage of each version, goes out with the next round's tasks, and
follows from the bits that came with the accepted updates. All of it is post-processing of what the sites noised.
Source: Andrew et al. 2021, arXiv:1905.03871, Algorithm 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hub.aggregation.strategy import CountedUpdate, RoundFacts, ServerState, Strategy
from hub.registry.blobs import BlobStore
from protocol.privacy_terms import Privacy
from protocol.site_level import next_update_norm


@dataclass(frozen=True)
class AdaptiveClipping:
    """A strategy with a length that follows a quantile."""

    strategy: Strategy
    privacy: Privacy

    def init(self, weights: str) -> ServerState:
        """Return the state of version 0, with the study's first length."""
        return self.strategy.init(weights).with_numbers(update_norm=self.privacy.update_norm)

    def apply(
        self, state: ServerState, updates: Sequence[CountedUpdate], blobs: BlobStore, facts: RoundFacts | None = None
    ) -> ServerState:
        """Store the next version's blobs and return the next state; see `Strategy.apply`."""
        norm = state.update_norm or self.privacy.update_norm
        bits = [update.uncut for update in updates if update.uncut is not None]
        following = next_update_norm(norm, bits, self.privacy.update_quantile, self.privacy.update_norm_rate)
        return self.strategy.apply(state, updates, blobs, facts).with_numbers(update_norm=following)
