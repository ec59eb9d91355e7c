"""A folder of one-tensor models: updates are rows of numbers, and results are read back as numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hub.aggregation.gathering import Gathered, gather
from hub.aggregation.joining import Joining
from hub.aggregation.strategy import CountedUpdate, RoundFacts, ServerState, Strategy
from hub.registry.blobs import BlobStore
from protocol.tensors import decode_weights, encode_weights

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Shelf:
    """Blobs by their numbers."""

    blobs: BlobStore

    def put(self, values: Sequence[float] | Matrix) -> str:
        """Store a model of these values and return its digest."""
        return self.blobs.put(encode_weights({"w": np.asarray(values, np.float32)}))

    def values(self, digest: str) -> NDArray[np.float32]:
        """Return the values of a blob."""
        return np.asarray(decode_weights(self.blobs.path(digest))["w"], np.float32)

    def updates(
        self, rows: Sequence[Sequence[float]] | Matrix, weights: Sequence[float] | None = None
    ) -> list[CountedUpdate]:
        """Store one update for each row; without weights they count alike."""
        counts = [1.0] * len(rows) if weights is None else weights
        pairs = zip(rows, counts, strict=True)
        return [CountedUpdate(f"s{i:02}", self.put(row), weight) for i, (row, weight) in enumerate(pairs)]

    def round(self, updates: Sequence[CountedUpdate], facts: RoundFacts | None = None) -> Gathered:
        """Return a first round of these updates."""
        weights = np.zeros_like(self.values(updates[0].blob))
        return gather(ServerState(0, self.put(weights)), updates, self.blobs, facts)

    def joined(
        self, joining: Joining, updates: Sequence[CountedUpdate], facts: RoundFacts | None = None
    ) -> list[float]:
        """Return what a joining makes of updates."""
        gathered = self.round(updates, facts)
        rule = joining.prepare(gathered)
        return [float(value) for window in gathered.windows() for value in rule(window)]

    def run(self, strategy: Strategy, rounds: Sequence[Sequence[float]], start: Sequence[float]) -> list[ServerState]:
        """Return the states of rounds of one update each."""
        states = [strategy.init(self.put(start))]
        for update in rounds:
            states.append(strategy.apply(states[-1], self.updates([update]), self.blobs))
        return states
