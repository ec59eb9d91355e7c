"""Means of the weights of several versions: what is released and judged, while sites train on from the weights.

`ExponentialMean` with decay d: mean_n = sum of d^(n-k) w_k / sum of d^(n-k) over versions k = 1 to n, which starts
without the memory of the random version 0. `LastTwo` is the mean of a version and the one before it, which lies in the
middle of a valley that the weights are crossing to and fro.
Source: Polyak and Juditsky 1992; under DP: De et al. 2022, arXiv:2204.13650; the last two: Jhunjhunwala, Wang and Joshi
2023, arXiv:2301.09604, section 4.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hub.aggregation.chunks import file_bytes, finite, side_by_side
from hub.aggregation.strategy import ServerState
from hub.registry.blobs import BlobStore
from protocol.manifest import Manifest


class IterateMean(Protocol):
    """What is released in place of the weights."""

    def next_mean(self, state: ServerState, weights: str, manifest: Manifest, blobs: BlobStore) -> str:
        """Store the mean after the weights that follow a state, and return its blob."""


@dataclass(frozen=True)
class ExponentialMean:
    """A mean that forgets a version by `decay` at each later one."""

    decay: float

    def next_mean(self, state: ServerState, weights: str, manifest: Manifest, blobs: BlobStore) -> str:
        """Store the mean; see `IterateMean`."""
        if state.mean is None:
            return weights
        # The newest weights' share of sum of d^(n-k), k = 1..n, which is (1 - d^n) / (1 - d).
        share = (1 - self.decay) / (1 - self.decay ** (state.step + 1))
        return _stored_mix(state.mean, weights, share, manifest, blobs)


@dataclass(frozen=True)
class LastTwo:
    """The mean of the last two versions' weights."""

    def next_mean(self, state: ServerState, weights: str, manifest: Manifest, blobs: BlobStore) -> str:
        """Store the mean; see `IterateMean`. Version 0 is nobody's result and stays out of it."""
        if state.step == 0:
            return weights
        return _stored_mix(state.weights, weights, 0.5, manifest, blobs)


def _stored_mix(mean: str, weights: str, share: float, manifest: Manifest, blobs: BlobStore) -> str:
    paths = [blobs.path(mean), blobs.path(weights)]
    return blobs.put_stream(file_bytes(manifest, _mixed(paths, share, manifest)))


def _mixed(paths: Sequence[Path], share: float, manifest: Manifest) -> Iterator[NDArray[np.float32]]:
    for window in side_by_side(paths, manifest):
        mean, newest = window[0].astype(np.float64), window[1].astype(np.float64)
        yield finite(mean + share * (newest - mean))
