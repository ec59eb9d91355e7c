"""Federated averaging: new weights = base + learning rate x weighted mean of the updates.

With `averaging` = d > 0 versions also carry the exponential mean of the weights of versions 1 to n,
mean_n = sum of d^(n-k) w_k / sum of d^(n-k), which starts without the memory of the random version 0. The mean is what
is released and judged; sites go on training from the weights, which are kept beside it as server state.
Source: McMahan et al. 2017, arXiv:1602.05629, Algorithm 1 (as a server step on the mean difference: Reddi et al. 2021,
arXiv:2003.00295, Algorithm 1); the mean of iterates: Polyak and Juditsky 1992, used under DP by De et al. 2022.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hub.aggregation.chunks import file_bytes, side_by_side
from hub.aggregation.strategy import CountedUpdate, ServerState
from hub.aggregation.weighted_mean import weighted_mean
from hub.errors import AggregationError
from hub.registry.blobs import BlobStore
from protocol.manifest import Manifest
from protocol.tensors import read_manifest


@dataclass(frozen=True)
class FedAvg:
    """The strategy and its two constants."""

    learning_rate: float = 1.0
    averaging: float = 0.0

    def init(self, weights: str) -> ServerState:
        """Return the state of version 0."""
        return ServerState(step=0, weights=weights)

    def apply(self, state: ServerState, updates: Sequence[CountedUpdate], blobs: BlobStore) -> ServerState:
        """Store the next version's blobs and return the next state; see `Strategy.apply`."""
        if not updates:
            raise AggregationError("A round without an accepted update makes no version.", "Start another round.")
        manifest = read_manifest(blobs.path(state.weights))
        paths = [blobs.path(digest) for digest in (state.weights, *(update.blob for update in updates))]
        stepped = self._stepped(paths, [update.weight for update in updates], manifest)
        weights = blobs.put_stream(file_bytes(manifest, stepped))
        step = state.step + 1
        mean = self._next_mean(state.mean, weights, step, manifest, blobs) if self.averaging else None
        return ServerState(step=step, weights=weights, mean=mean)

    def _stepped(
        self, paths: Sequence[Path], weights: Sequence[float], manifest: Manifest
    ) -> Iterator[NDArray[np.float32]]:
        for window in side_by_side(paths, manifest):
            moved = window[0].astype(np.float64) + self.learning_rate * weighted_mean(window[1:], weights)
            yield _finite(moved)

    def _next_mean(self, mean: str | None, weights: str, step: int, manifest: Manifest, blobs: BlobStore) -> str:
        if mean is None:
            return weights
        # The newest weights' share of sum of d^(n-k), k = 1..n, which is (1 - d^n) / (1 - d).
        share = (1 - self.averaging) / (1 - self.averaging**step)
        paths = [blobs.path(mean), blobs.path(weights)]
        return blobs.put_stream(file_bytes(manifest, _mixed(paths, share, manifest)))


def _mixed(paths: Sequence[Path], share: float, manifest: Manifest) -> Iterator[NDArray[np.float32]]:
    for window in side_by_side(paths, manifest):
        mean, newest = window[0].astype(np.float64), window[1].astype(np.float64)
        yield _finite(mean + share * (newest - mean))


def _finite(values: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if not bool(np.isfinite(narrow).all()):
        raise AggregationError("The next version would hold values that are not finite.", "Lower the learning rates.")
    return narrow
