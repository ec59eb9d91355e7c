"""The updates of one round as files side by side: what a joining and a server's step work on."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hub.aggregation.chunks import Window, side_by_side
from hub.aggregation.strategy import CountedUpdate, RoundFacts, ServerState
from hub.errors import AggregationError
from hub.registry.blobs import BlobStore
from protocol.manifest import Manifest
from protocol.tensors import read_manifest

Values = NDArray[np.float64]
"""(value,) float64."""
Rows = NDArray[np.float64]
"""(site, value) float64."""
Centre = Callable[[Window], Values]
"""A point of the updates' space, from a window of all updates to its values there."""
BLOCK_BYTES = 512 << 10
"""A block of all updates stays in the processor's cache while its values are sorted or its rows compared."""
SMALLEST_BLOCK_VALUES = 64


@dataclass(frozen=True)
class Gathered:
    """One round: the state before it, its updates in their fixed order, and where their files lie."""

    state: ServerState
    updates: tuple[CountedUpdate, ...]
    paths: tuple[Path, ...]
    manifest: Manifest
    facts: RoundFacts

    @property
    def factors(self) -> tuple[float, ...]:
        """Return what each update is multiplied by before it is joined."""
        return tuple(update.factor for update in self.updates)

    @property
    def sites(self) -> int:
        """Return how many sites' updates there are, also where they came as one sum."""
        return sum(update.sites for update in self.updates)

    def trained_in(self, update: CountedUpdate) -> int:
        """Return the round whose learning rate an update was trained with: an earlier one if it is late or buffered."""
        return self.facts.number if update.round is None else update.round

    def windows(self) -> Iterator[Window]:
        """Yield all updates side by side, as they were sent."""
        return side_by_side(self.paths, self.manifest)

    def scaled(self, factors: Sequence[float]) -> "Gathered":
        """Return the round with each update multiplied by a further factor."""
        pairs = zip(self.updates, factors, strict=True)
        return replace(self, updates=tuple(replace(u, factor=u.factor * factor) for u, factor in pairs))


def gather(
    state: ServerState, updates: Sequence[CountedUpdate], blobs: BlobStore, facts: RoundFacts | None = None
) -> Gathered:
    """Return the round of these updates; see `Strategy.apply` for what is taken without facts.

    Raises: AggregationError if there is no update.
    """
    if not updates:
        raise AggregationError("A round without an accepted update makes no version.", "Start another round.")
    manifest = read_manifest(blobs.path(state.weights))
    paths = tuple(blobs.path(update.blob) for update in updates)
    known = facts or RoundFacts(state.step + 1, sum(update.sites for update in updates))
    return Gathered(state, tuple(updates), paths, manifest, known)


def scaled_blocks(window: Window, factors: Sequence[float]) -> Iterator[Rows]:
    """Yield a window's updates in narrow blocks of values, each update multiplied by its factor.

    Shapes: window (site, value) float32; each block (site, value) float64 of BLOCK_BYTES, free to be changed.
    """
    scales = np.asarray(factors, np.float64)[:, None]
    width = max(SMALLEST_BLOCK_VALUES, BLOCK_BYTES // (scales.itemsize * len(window)))
    for start in range(0, window.shape[1], width):
        yield window[:, start : start + width].astype(np.float64) * scales


def squared_lengths(gathered: Gathered, factors: Sequence[float], centre: Centre | None = None) -> list[float]:
    """Return each update's squared distance from a point, or from zero, in one reading of the files.

    Guarantee: the same to the bit on any machine; memory is a window.
    """
    rows = [_squares(window, factors, None if centre is None else centre(window)) for window in gathered.windows()]
    return [math.fsum(column) for column in zip(*rows, strict=True)]


def squared_length(gathered: Gathered, point: Centre) -> float:
    """Return the squared length of one point, the joined update for example; guarantees as above."""
    return math.fsum(float(np.add.reduce(np.square(point(window)))) for window in gathered.windows())


def _squares(window: Window, factors: Sequence[float], point: Values | None) -> list[float]:
    found = []
    for row, factor in zip(window, factors, strict=True):
        values = row.astype(np.float64) * factor
        if point is not None:
            values -= point
        values *= values
        # A sum by halves, which is the same on any machine; a dot product need not be.
        found.append(float(np.add.reduce(values)))
    return found
