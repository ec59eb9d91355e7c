"""From masked vectors to the weighted mean: added, unmasked and scaled, window by window. The hub learns the sum alone.

The words of all survivors' files are added modulo the ring, the masks that the survivors' shares open are taken off,
and what is left is the exact sum of the integers. With random-k they are put back in their places, zeros elsewhere.
Memory is two windows, however many files there are.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from hub.aggregation.chunks import file_bytes
from hub.errors import AggregationError
from hub.registry.blobs import BlobStore
from protocol.compression.seeded_values import scattered
from protocol.compression.terms import upload_terms
from protocol.secure_aggregation.fixed_point import dequantise
from protocol.secure_aggregation.masking import MaskStreams, Opening, SignedMask, masks_on_sum
from protocol.secure_aggregation.ring import Integers
from protocol.secure_aggregation.roster import Roster
from protocol.secure_aggregation.vector import WEIGHT_BASE_BITS, WEIGHT_DIGITS, VectorTerms, vector_terms, weights_sum
from protocol.study import StudySpec
from protocol.tensors import read_manifest

WINDOW_BYTES = 1 << 20
RESTORE = "Restore the blob store from a backup."
ASK = "Ask the study's sites; the round is not counted."
DAMAGED = "The masks do not cancel: a vector or a share is not what its site should have sent. Nothing was learnt."


@dataclass(frozen=True)
class MaskedSum:
    """What the sum of a round is made from."""

    study: StudySpec
    base: str
    """A blob of the study's model."""
    blobs: tuple[str, ...]
    roster: Roster
    opening: Opening


def store_mean(masked: MaskedSum, blobs: BlobStore) -> str:
    """Store the weighted mean of the survivors' updates as a weights file and return its digest.

    Raises: MaskingError if the shares do not open the masks; AggregationError if a file is not a vector of the study,
        or the masks do not cancel.
    """
    manifest = read_manifest(blobs.path(masked.base))
    terms = vector_terms(masked.study, manifest.parameters)
    coding = upload_terms(masked.study, manifest, masked.roster.round)
    paths = [blobs.path(digest) for digest in masked.blobs]
    windows = integer_sums(paths, masks_on_sum(masked.roster, masked.opening), terms)
    return blobs.put_stream(file_bytes(manifest, scattered(_means(windows, terms, len(paths)), coding)))


def store_opened_mean(study: StudySpec, number: int, base: str, words: str, sites: int, blobs: BlobStore) -> str:
    """Store the weighted mean that a round's opened sum of so many sites' vectors stands for; `words` is its blob.

    Raises: AggregationError if the blob is not the sum of so many vectors of the study.
    """
    manifest = read_manifest(blobs.path(base))
    terms = vector_terms(study, manifest.parameters)
    windows = integer_sums([blobs.path(words)], [], terms)
    coding = upload_terms(study, manifest, number)
    return blobs.put_stream(file_bytes(manifest, scattered(_means(windows, terms, sites), coding)))


def _means(windows: Iterator[Integers], terms: VectorTerms, sites: int) -> Iterator[NDArray[np.float32]]:
    divisor = terms.divisor(next_weights_sum(windows, terms, sites))
    return (dequantise(_plausible(window, terms, sites), terms.unit, divisor) for window in windows)


def integer_sums(paths: Sequence[Path], masks: Sequence[SignedMask], terms: VectorTerms) -> Iterator[Integers]:
    """Yield the unmasked sums: first those of the weights' digits (unsigned), then of the values, in windows.

    Raises: AggregationError if a file is missing or not of the vector's length.
    """
    streams = MaskStreams(masks, terms.ring)
    with ExitStack() as stack:
        files = [stack.enter_context(_opened(path, terms)) for path in paths]
        sizes = [WEIGHT_DIGITS, *_window_sizes(terms)]
        for place, size in enumerate(sizes):
            total = np.zeros(size, terms.ring.dtype)
            for file in files:
                total += np.frombuffer(file.read(size * terms.ring.bytes_per_value), terms.ring.dtype)
            streams.apply(total)
            yield total.astype(np.int64) if place == 0 else terms.ring.decode(total)


def next_weights_sum(windows: Iterator[Integers], terms: VectorTerms, sites: int) -> int:
    """Take the first window off and return the sum of the weights.

    Raises: AggregationError if so many sites cannot have such weights.
    """
    digits = next(windows)
    total = weights_sum(digits)
    most = ((1 << WEIGHT_BASE_BITS) - 1) * sites
    if int(digits.max()) > most or not sites <= total <= sites * terms.maximum_weight:
        raise AggregationError(DAMAGED, ASK)
    return total


def _plausible(window: Integers, terms: VectorTerms, sites: int) -> Integers:
    if int(np.abs(window).max(initial=0)) > sites * terms.bound:
        raise AggregationError(DAMAGED, ASK)
    return window


def _window_sizes(terms: VectorTerms) -> Iterator[int]:
    width = WINDOW_BYTES // terms.ring.bytes_per_value
    for start in range(0, terms.values, width):
        yield min(width, terms.values - start)


def _opened(path: Path, terms: VectorTerms) -> BinaryIO:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise AggregationError("A vector that was accepted is missing.", RESTORE) from None
    if size != terms.payload_bytes:
        raise AggregationError("A blob is not a vector of its study.", RESTORE)
    return path.open("rb")
