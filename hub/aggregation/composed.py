"""A strategy put together from three small parts.

How updates are joined, how the joined update moves the weights, and which mean of the weights is released. Any server's
step goes with any joining; what makes no sense is refused when the study is written (`protocol/strategy_rules.py`).

The weights, the step's arrays and the updates lie side by side; a window of each is read, moved on and written, and all
new files grow together. Memory is a window, however many sites and however large the model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hub.aggregation.chunks import as_bytes, finite, side_by_side
from hub.aggregation.gathering import Gathered, gather
from hub.aggregation.iterate_mean import IterateMean
from hub.aggregation.joining import Joined, Joining, LinearJoin
from hub.aggregation.server_step import Arrays, Move, ServerStep
from hub.aggregation.strategy import MEAN, SHARE, CountedUpdate, RoundFacts, ServerState
from hub.registry.blobs import BlobStore


@dataclass(frozen=True)
class Composed:
    """Joining, server's step and released mean (None: the weights are released)."""

    joining: Joining
    step: ServerStep
    mean: IterateMean | None = None

    def init(self, weights: str) -> ServerState:
        """Return the state of version 0."""
        return ServerState(step=0, weights=weights)

    def apply(
        self, state: ServerState, updates: Sequence[CountedUpdate], blobs: BlobStore, facts: RoundFacts | None = None
    ) -> ServerState:
        """Store the next version's blobs and return the next state; see `Strategy.apply`."""
        gathered = gather(state, updates, blobs, facts)
        joined = self.joining.prepare(gathered)
        move = self.step.prepare(gathered, joined)
        starts = self.step.arrays
        rows = _written(gathered, joined, move, starts, blobs)
        weights, *arrays = blobs.put_side_by_side(rows, 1 + len(starts))
        kept = dict(zip(starts, arrays, strict=True))
        if self.mean is not None:
            kept[MEAN] = self.mean.next_mean(state, weights, gathered.manifest, blobs)
        return ServerState(state.step + 1, weights, kept, {**move.numbers, **shares_of(gathered, joined)})


def shares_of(gathered: Gathered, joined: Joined) -> dict[str, float]:
    """Return what stands before each site's update in the joined one, where the hub gave it other weights than it sent.

    So the lineage tells whom Krum chose, whom a limit shortened, and what noise left of a hospital.
    """
    sent = tuple(update.weight for update in gathered.updates), gathered.factors
    if not isinstance(joined, LinearJoin) or len(gathered.updates) == 1 or (joined.weights, joined.factors) == sent:
        return {}
    shares: dict[str, float] = {}
    for update, share, factor in zip(gathered.updates, joined.shares, joined.factors, strict=True):
        name = SHARE + update.site
        shares[name] = shares.get(name, 0.0) + share * factor
    return shares


def _written(
    gathered: Gathered, joined: Joined, move: Move, starts: Mapping[str, float], blobs: BlobStore
) -> Iterator[list[bytes]]:
    state, header = gathered.state, gathered.manifest.header
    stored = [name for name in starts if name in state.blobs]
    before: list[Path] = [blobs.path(digest) for digest in (state.weights, *(state.blobs[name] for name in stored))]
    yield [header] * (1 + len(starts))
    for window in side_by_side([*before, *gathered.paths], gathered.manifest):
        weights, *kept = window[: len(before)].astype(np.float64)
        arrays: Arrays = {name: np.full_like(weights, start) for name, start in starts.items()} | dict(
            zip(stored, kept, strict=True)
        )
        moved, after = move.take(weights, joined(window[len(before) :]), arrays)
        yield [as_bytes(finite(moved)), *(as_bytes(finite(after[name])) for name in starts)]
