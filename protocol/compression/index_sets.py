"""A set of places below some size as bytes: Elias-Fano code, or a bitmap where that is shorter. Pure.

With n places of which k are chosen, each place is split: its lowest floor(log2(n/k)) bits are packed as they are; the
rest, which rises slowly, stands as a row of bits, one bit 1 for each chosen place after as many 0 as the rest has
risen. That is 2 + log2(n/k) bits a place, within about half a bit of the least possible, and unlike a run of coded
gaps it is written and read without a loop over places. Size n and number k are known to both sides and do not travel.
Source: Elias 1974; Fano 1971; Vigna 2013, "Quasi-succinct indices", arXiv:1206.4300, section 4.

    >>> decode_places(encode_places(np.array([3, 70]), 100), 100, 2).tolist()
    [3, 70]
"""

import numpy as np

from protocol.compression.bits import pack, packed_bytes, unpack
from protocol.compression.choice import Indices
from protocol.errors import CodecError


def places_bytes(size: int, number: int) -> int:
    """Return the bytes that so many of so many places take."""
    return min(_bitmap_bytes(size), _split_bytes(size, number))


def encode_places(places: Indices, size: int) -> bytes:
    """Return rising places below `size` as bytes."""
    number = places.size
    if _is_bitmap(size, number):
        return np.packbits(np.bincount(places, minlength=size).astype(bool)).tobytes()
    low = _low_bits(size, number)
    upper = np.zeros(_upper_bits(size, number), bool)
    upper[(places >> low) + np.arange(number)] = True
    return pack((places & ((1 << low) - 1)).astype(np.uint16), low) + np.packbits(upper).tobytes()


def decode_places(data: bytes | memoryview, size: int, number: int) -> Indices:
    """Return the places in bytes that `encode_places` made.

    Raises: CodecError for anything else: other lengths, another number, places that do not rise or are too large.
    """
    if len(data) != places_bytes(size, number):
        raise CodecError("A list of places is cut off or too long.")
    if _is_bitmap(size, number):
        places = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8)))
    else:
        low = _low_bits(size, number)
        split = packed_bytes(number, low)
        ones = np.flatnonzero(np.unpackbits(np.frombuffer(data[split:], np.uint8)))
        if ones.size != number:
            raise CodecError("A list of places has another number than the study says.")
        lowest = unpack(data[:split], number, low).astype(np.int64)
        places = ((ones - np.arange(number)) << low) | lowest
    rises = bool((np.diff(places) > 0).all())
    if places.size != number or not rises or (number and int(places[-1]) >= size):
        raise CodecError("A list of places has another number than the study says, or does not rise.")
    return places


def _low_bits(size: int, number: int) -> int:
    return max(0, (size // max(1, number)).bit_length() - 1)


def _upper_bits(size: int, number: int) -> int:
    return ((size - 1) >> _low_bits(size, number)) + number


def _split_bytes(size: int, number: int) -> int:
    return packed_bytes(number, _low_bits(size, number)) + (_upper_bits(size, number) + 7) // 8


def _bitmap_bytes(size: int) -> int:
    return (size + 7) // 8


def _is_bitmap(size: int, number: int) -> bool:
    return _bitmap_bytes(size) <= _split_bytes(size, number)
