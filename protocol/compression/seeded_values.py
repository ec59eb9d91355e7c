"""The values at the places of random-k alone, as sums under masks carry them, and back in their places. Pure."""

from collections.abc import Iterable, Iterator

import numpy as np

from protocol.compression.choice import blocks
from protocol.compression.coding import Block, CodingTerms, Parts, Values
from protocol.errors import CodecError


def gathered(vector: Values, terms: CodingTerms) -> Values:
    """Return the values that travel, in the order of their places.

    Raises: CodecError if the places are not derived from what all sites know.
    """
    if terms.steps.sparsifier is None:
        return vector
    found = [vector[start + block.shared_places()] for start, block in _blocks(terms)]
    return np.concatenate(found) if found else vector[:0]


def scattered(values: Iterable[Values], terms: CodingTerms) -> Iterator[Values]:
    """Yield the whole vector by blocks: the given values in their places, times the terms' factor, zeros elsewhere.

    Guarantee: memory is one block and one part of the given values.
    Raises: CodecError if there are too many or too few values.
    """
    if terms.steps.sparsifier is None:
        yield from values
        return
    parts = Parts(values)
    for _, block in _blocks(terms):
        dense = np.zeros(block.size, np.float32)
        dense[block.shared_places()] = parts.take(block.number) * np.float32(block.factor)
        yield dense
    parts.expect_end()


def _blocks(terms: CodingTerms) -> Iterator[tuple[int, Block]]:
    if terms.steps.sparsifier == "top-k":
        raise CodecError("The places of top-k are each site's own.")
    for start, size in blocks(terms.manifest.parameters):
        yield start, Block(terms, start, size)
