"""Numbers of few bits, packed without gaps, the highest bit first. Pure."""

import numpy as np
from numpy.typing import NDArray

from protocol.errors import CodecError

WORD_BITS = 16

Codes = NDArray[np.uint16]


def packed_bytes(number: int, bits: int) -> int:
    """Return the bytes of so many packed numbers."""
    return (number * bits + 7) // 8


def pack(codes: Codes, bits: int) -> bytes:
    """Pack numbers below 2**bits; `bits` is at most 16."""
    if bits == 0:
        return b""
    octets = codes.astype(">u2").view(np.uint8).reshape(-1, 2)
    return np.packbits(np.unpackbits(octets, axis=1)[:, WORD_BITS - bits :]).tobytes()


def unpack(data: bytes | memoryview, number: int, bits: int) -> Codes:
    """Return the packed numbers.

    Raises: CodecError if the bytes are of another number, or the bits after the last number are not zero.
    """
    if len(data) != packed_bytes(number, bits):
        raise CodecError("Packed numbers are cut off or too long.")
    if bits == 0:
        return np.zeros(number, np.uint16)
    single = np.unpackbits(np.frombuffer(data, np.uint8))
    if single[number * bits :].any():
        raise CodecError("Packed numbers end in bits that mean nothing.")
    wide = np.zeros((number, WORD_BITS), np.uint8)
    wide[:, WORD_BITS - bits :] = single[: number * bits].reshape(number, bits)
    return np.packbits(wide, axis=1).view(">u2").reshape(number).astype(np.uint16)
