"""A vector as the steps of a study make it, block by block: written at one side, read at the other while bytes come.

    block = places (top-k only) | scales (quantise only) | values

A block is 65,536 values of the flat vector (`choice.py`). Scales are float32, one for each piece that sends a value: a
piece is the part of a tensor that lies in the block, so a tensor of up to a block's size has one or two. Values are
packed levels (`quantise`), 16-bit floats (`half`) or float32. All numbers are little-endian; nothing else is in the
bytes: what must be known to read them both sides have from the study, the task and the model's manifest. The step
`zstandard` is around this and not done here.

    >>> from protocol.compression.steps import parse_steps
    >>> from protocol.manifest import Manifest, TensorEntry
    >>> manifest = Manifest((TensorEntry("weight", (4,)),))
    >>> terms = CodingTerms(parse_steps(["top-k:0.5", "quantise:2"]), manifest, "sha256:" + "0" * 64, 1, feedback=True)
    >>> data = b"".join(encoded([np.array([0, -3, 2, 1], np.float32)], terms))
    >>> len(data), decoded(data, terms).tolist()
    (6, [0.0, -3.0, 3.0, 0.0])
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from protocol.compression.bits import pack, packed_bytes, unpack
from protocol.compression.choice import (
    BLOCK_VALUES,
    Indices,
    Use,
    blocks,
    chosen_number,
    largest_places,
    seed_of,
    seeded_places,
)
from protocol.compression.index_sets import decode_places, encode_places, places_bytes
from protocol.compression.quantisation import decode_half, decode_levels, encode_half, encode_levels, most_level
from protocol.compression.steps import CodecSteps
from protocol.errors import CodecError
from protocol.manifest import Manifest

SCALE_BYTES = 4
LITTLE_ENDIAN = np.dtype("<f4")

Values = NDArray[np.float32]
Draws = Callable[[int], NDArray[np.uint32]]
"""Gives so many uniform secret 32-bit numbers."""


@dataclass(frozen=True)
class CodingTerms:
    """What both sides know of a coded vector.

    `feedback` says that what the steps lose is kept and added to the next vector: levels are then the nearest ones, and
    random-k's values travel as they are. Without it both are unbiased: levels by chance, and random-k's values count
    n/k times.
    """

    steps: CodecSteps
    manifest: Manifest
    study_digest: str
    round: int
    feedback: bool
    use: Use = "upload"

    @cached_property
    def seed(self) -> bytes:
        """Return the public seed of the places of random-k."""
        return seed_of(self.study_digest, self.round, self.use)

    @cached_property
    def tensor_starts(self) -> NDArray[np.int64]:
        """Return where in the flat vector each tensor begins."""
        sizes = [entry.parameters for entry in self.manifest.entries]
        return np.unique(np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(np.int64))

    @property
    def most_bytes(self) -> int:
        """Return the most bytes that a coded vector takes."""
        return sum(Block(self, start, size).most_bytes for start, size in blocks(self.manifest.parameters))


@dataclass(frozen=True)
class Block:
    """The arithmetic of one block: `size` values of the flat vector from `start` on."""

    terms: CodingTerms
    start: int
    size: int

    @property
    def number(self) -> int:
        """Return how many of the values travel."""
        sparse = self.terms.steps.sparsifier is not None
        return chosen_number(self.size, self.terms.steps.fraction) if sparse else self.size

    @property
    def factor(self) -> float:
        """Return what a value that has travelled is multiplied by."""
        unbiased = self.terms.steps.sparsifier == "random-k" and not self.terms.feedback
        return self.size / self.number if unbiased else 1.0

    @property
    def places_bytes(self) -> int:
        """Return the bytes of the places."""
        return places_bytes(self.size, self.number) if self.terms.steps.sparsifier == "top-k" else 0

    @property
    def most_bytes(self) -> int:
        """Return the most bytes of the whole block."""
        scales = 0
        if self.terms.steps.precision == "quantise":
            scales = SCALE_BYTES * min(self.number, len(self.piece_starts))
        return self.places_bytes + scales + self.values_bytes

    @property
    def values_bytes(self) -> int:
        """Return the bytes of the values."""
        return packed_bytes(self.number, self.terms.steps.bits_per_value)

    @property
    def piece_starts(self) -> Indices:
        """Return where in the block its pieces begin."""
        starts = self.terms.tensor_starts
        inside = starts[np.searchsorted(starts, self.start, "right") : np.searchsorted(starts, self.start + self.size)]
        return np.concatenate([[0], inside - self.start])

    def known_places(self) -> Indices | None:
        """Return the places where values travel, or None if they are in the bytes."""
        return None if self.terms.steps.sparsifier == "top-k" else self.shared_places()

    def shared_places(self) -> Indices:
        """Return the places that all derive alike: all of them, or those of random-k."""
        if self.terms.steps.sparsifier is None:
            return np.arange(self.size)
        return seeded_places(self.terms.seed, self.start // BLOCK_VALUES, self.size, self.number)

    def groups(self, places: Indices) -> tuple[Indices, Indices]:
        """Return, for the pieces that send a value, the first of its values and how many they are."""
        edges = np.append(np.searchsorted(places, self.piece_starts), places.size)
        lengths = np.diff(edges)
        return edges[:-1][lengths > 0], lengths[lengths > 0]


def encoded(vector: Iterable[Values], terms: CodingTerms, draws: Draws | None = None) -> Iterator[bytes]:
    """Yield the bytes of a vector whose values come in parts of any size, block by block.

    Guarantee: `decoded` gives the same values at every site and at the hub; memory is one block and one part.
    Raises: CodecError if a value is not finite or beyond the format's range, the vector is of another length, or chance
        is needed and not given.
    """
    reader = Parts(vector)
    for start, size in blocks(terms.manifest.parameters):
        yield _encoded_block(reader.take(size), Block(terms, start, size), draws)
    reader.expect_end()


def decoded(data: bytes, terms: CodingTerms) -> Values:
    """Return the whole vector that coded bytes stand for; see `Decoder`."""
    decoder = Decoder(terms)
    parts = list(decoder.feed(data))
    decoder.finish()
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


class Decoder:
    """Reads coded bytes as they come and gives the vector's blocks, places that did not travel being zero.

    Guarantee: every value is finite; memory is one block beside the bytes that were handed in.
    Raises: CodecError, from `feed` and `finish`, at the first thing that `encoded` would not have written: places that
        do not rise, levels or scales that are none, bits that mean nothing, too many bytes or too few.
    """

    def __init__(self, terms: CodingTerms) -> None:
        self._terms = terms
        self._blocks = (Block(terms, start, size) for start, size in blocks(terms.manifest.parameters))
        self._block = next(self._blocks, None)
        self._places = None if self._block is None else self._block.known_places()
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Values]:
        """Take the next bytes and yield the blocks that are whole; to be exhausted before the next call."""
        view, at = memoryview(self._rest + data), 0
        while self._block is not None:
            if self._places is None:
                end = at + self._block.places_bytes
                if end > len(view):
                    break
                self._places, at = decode_places(view[at:end], self._block.size, self._block.number), end
            end = at + _body_bytes(self._block, self._places)
            if end > len(view):
                break
            dense = _decoded_body(view[at:end], self._block, self._places)
            at, self._block = end, next(self._blocks, None)
            self._places = None if self._block is None else self._block.known_places()
            yield dense
        if self._block is None and at < len(view):
            raise CodecError("A coded vector goes on after its last value.")
        self._rest = bytes(view[at:])

    def finish(self) -> None:
        """Check that the last value has come."""
        if self._block is not None:
            raise CodecError("A coded vector is cut off: values are missing.")


def _encoded_block(values: Values, block: Block, draws: Draws | None) -> bytes:
    if not bool(np.isfinite(values).all()):
        raise CodecError("A vector must be finite before it is coded.")
    steps, places = block.terms.steps, block.known_places()
    head = b""
    if places is None:
        places = largest_places(values, block.number)
        head = encode_places(places, block.size)
    chosen = values[places]
    if steps.precision == "half":
        return head + encode_half(chosen, steps.half_format)
    if steps.precision == "single":
        return head + chosen.astype(LITTLE_ENDIAN).tobytes()
    firsts, lengths = block.groups(places)
    scales = np.maximum.reduceat(np.abs(chosen), firsts).astype(LITTLE_ENDIAN)
    most = most_level(steps.bits)
    chances = None if block.terms.feedback else _chances(draws, chosen.size)
    levels = encode_levels(chosen, np.repeat(scales, lengths), most, chances)
    return head + scales.tobytes() + pack((levels + most).astype(np.uint16), steps.bits)


def _chances(draws: Draws | None, number: int) -> NDArray[np.uint32]:
    if draws is None:
        raise CodecError("Rounding by chance needs secret draws.")
    return draws(number)


def _body_bytes(block: Block, places: Indices) -> int:
    if block.terms.steps.precision != "quantise":
        return block.values_bytes
    return SCALE_BYTES * block.groups(places)[0].size + block.values_bytes


def _decoded_body(data: memoryview, block: Block, places: Indices) -> Values:
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused just below
        chosen = _decoded_values(data, block, places) * np.float32(block.factor)
    if not bool(np.isfinite(chosen).all()):
        raise CodecError("A coded vector holds a value or a scale that is not finite.")
    dense = np.zeros(block.size, np.float32)
    dense[places] = chosen
    return dense


def _decoded_values(data: memoryview, block: Block, places: Indices) -> Values:
    steps = block.terms.steps
    if steps.precision == "half":
        return decode_half(data, steps.half_format)
    if steps.precision == "single":
        return np.frombuffer(data, LITTLE_ENDIAN).astype(np.float32)
    _, lengths = block.groups(places)
    split = SCALE_BYTES * lengths.size
    scales = np.frombuffer(data[:split], LITTLE_ENDIAN)
    if bool((scales < 0).any()):
        raise CodecError("A scale of a coded vector is negative.")
    most = most_level(steps.bits)
    levels = unpack(data[split:], block.number, steps.bits).astype(np.int64) - most
    if int(levels.max(initial=0)) > most:
        raise CodecError("A level of a coded vector is none of the study's.")
    return decode_levels(levels, np.repeat(scales, lengths), most)


class Parts:
    """Values that come in parts of any size, taken in pieces of another."""

    def __init__(self, parts: Iterable[Values]) -> None:
        self._parts = iter(parts)
        self._part: Values = np.zeros(0, np.float32)
        self._used = 0

    def take(self, size: int) -> Values:
        """Return the next values.

        Raises: CodecError if there are not so many.
        """
        taken = np.empty(size, np.float32)  # a part's own memory may be used again for the next one
        held = 0
        while held < size:
            if self._used == self._part.size and not self._next():
                raise CodecError("A vector is shorter than its model's.")
            piece = self._part[self._used : self._used + size - held]
            taken[held : held + piece.size] = piece
            held, self._used = held + piece.size, self._used + piece.size
        return taken

    def expect_end(self) -> None:
        """Check that no value is left.

        Raises: CodecError if there is one.
        """
        while self._used == self._part.size:
            if not self._next():
                return
        raise CodecError("A vector is longer than its model's.")

    def _next(self) -> bool:
        part = next(self._parts, None)
        if part is None:
            return False
        self._part, self._used = part, 0
        return True
