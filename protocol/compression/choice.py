"""Which values of a model travel: blocks of the flat vector, and a fixed number of places in each.

The vector is cut into blocks of 65,536 values, so that both sides need the memory of one block, however large the
model. A block of n values sends round(fraction x n) of them, at least one: a number that both sides know beforehand.

    top-k      the places of the largest magnitudes: each site's own, so they travel
    random-k   places drawn from a public seed (the study's digest and the round): the same at every site, so that they
               need not travel and that sums under masks keep their meaning

Either keeps the squared error at most (1 - k/n) times the square of what it was given, random-k in expectation: the
contraction that error feedback needs. Sent once and forgotten, random-k is made unbiased by the factor n/k instead.
Source: Stich, Cordonnier and Jaggi 2018, arXiv:1809.07599, Definition 2.1; for blocks: Karimireddy et al. 2019,
arXiv:1901.09847, Remark 7; RFC 5869 (HKDF); RFC 8439 (ChaCha20).
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from protocol.digest import hex_of

BLOCK_VALUES = 1 << 16
INDEX_BITS = 16
KEY_BYTES = 32

Indices = NDArray[np.int64]
"""(chosen,) places within a block, rising."""
Use = Literal["upload", "download"]


def blocks(parameters: int) -> Iterator[tuple[int, int]]:
    """Yield start and size of each block of a vector."""
    for start in range(0, parameters, BLOCK_VALUES):
        yield start, min(BLOCK_VALUES, parameters - start)


def chosen_number(size: int, fraction: float) -> int:
    """Return how many of a block's values travel."""
    return max(1, min(size, round(fraction * size)))


def chosen_total(parameters: int, fraction: float) -> int:
    """Return how many values of a whole vector travel."""
    whole, rest = divmod(parameters, BLOCK_VALUES)
    return whole * chosen_number(BLOCK_VALUES, fraction) + (chosen_number(rest, fraction) if rest else 0)


def largest_places(values: NDArray[Any], number: int) -> Indices:
    """Return the places of the values of largest magnitude."""
    if number >= values.size:
        return np.arange(values.size)
    return np.sort(np.argpartition(np.abs(values), values.size - number)[-number:]).astype(np.int64)


def seed_of(study_digest: str, number: int, use: Use) -> bytes:
    """Return the public seed of a round's places."""
    info = f"wardround.random-k/1\n{use}\n{number}".encode()
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(bytes.fromhex(hex_of(study_digest)))


def seeded_places(seed: bytes, block: int, size: int, number: int) -> Indices:
    """Return the places that all sites choose in one block.

    Guarantee: a function of the arguments alone, on every machine; each set of so many places is equally likely, but
        for a bias below 2**-16 that comes from ties of 48-bit draws.
    """
    if number >= size:
        return np.arange(size)
    nonce = bytes(8) + block.to_bytes(8, "little")
    stream = Cipher(ChaCha20(seed, nonce), mode=None).encryptor().update(bytes(8 * size))
    draws = np.frombuffer(stream, "<u8").astype(np.uint64) >> np.uint64(INDEX_BITS) << np.uint64(INDEX_BITS)
    draws |= np.arange(size, dtype=np.uint64)  # no two draws are equal, so that the smallest are always the same ones
    return np.sort(np.argpartition(draws, number - 1)[:number]).astype(np.int64)
