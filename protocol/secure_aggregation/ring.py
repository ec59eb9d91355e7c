"""Integers modulo 2^16 or 2^32, as numpy holds them and as they travel: little-endian words.

A centred integer v stands for the word v mod 2^bits (two's complement), so that sums of words are sums of integers as
long as these stay within +-largest.

    >>> ring = Ring(16)
    >>> ring.decode(ring.encode(np.array([-3])) + ring.encode(np.array([5]))).tolist()
    [2]
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[Any]
"""(value,) uint16 or uint32, little-endian."""
Integers = NDArray[np.int64]
"""(value,) int64, centred."""

WIDTHS = (16, 32)


@dataclass(frozen=True)
class Ring:
    """The integers modulo 2^bits."""

    bits: int

    def __post_init__(self) -> None:
        """Refuse a width that does not travel."""
        if self.bits not in WIDTHS:
            raise ValueError(f"Expected a ring of {WIDTHS} bits, got {self.bits}.")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the words' type."""
        return np.dtype(f"<u{self.bits // 8}")

    @property
    def bytes_per_value(self) -> int:
        """Return the bytes of a word."""
        return self.bits // 8

    @property
    def largest(self) -> int:
        """Return the largest magnitude that a sum may have: positive and negative sums stay apart."""
        return (1 << (self.bits - 1)) - 1

    def encode(self, integers: NDArray[Any]) -> Words:
        """Return the words of centred integers."""
        return integers.astype(np.int64, copy=False).astype(self.dtype)

    def decode(self, words: Words) -> Integers:
        """Return the centred integers of words."""
        return words.astype(self.dtype, copy=False).view(f"<i{self.bits // 8}").astype(np.int64)

    def from_bytes(self, data: bytes | memoryview) -> Words:
        """Return the words in bytes; they share the bytes' memory and cannot be written."""
        return np.frombuffer(data, self.dtype)
