"""Values as few bits: uniform levels between plus and minus a scale, or floats of half the width. Pure.

Levels. With b bits a value lies on one of 2L + 1 levels, L = 2**(b-1) - 1, in units of scale / L, the scale being the
largest magnitude of its piece. Rounded by chance (u uniform and secret) a value keeps its expectation; rounded to the
nearest level the error is never longer than the value, which is what error feedback needs and chance does not give at
few bits. Source: Alistarh et al. 2017 (QSGD), arXiv:1610.02132, section 3.1, with the largest magnitude as the scale.

    >>> encode_levels(np.array([1.0, -0.5, 0.1]), np.array([1.0, 1.0, 1.0]), 3, None)
    array([ 3, -1,  0])
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.compression.steps import HalfFormat
from protocol.errors import CodecError

DRAW_BITS = 32
FLOAT32_DROPPED_BITS = 16
"""bfloat16 is the upper half of a float32."""

Levels = NDArray[np.int64]
Draws32 = NDArray[np.uint32]


def most_level(bits: int) -> int:
    """Return the largest level of so many bits."""
    return int((1 << (bits - 1)) - 1)


def encode_levels(values: NDArray[Any], scales: NDArray[Any], most: int, draws: Draws32 | None) -> Levels:
    """Return each value's level; by chance from `draws`, or the nearest where there are none.

    Shapes: values, scales and draws (value,); a scale is at least its value's magnitude.
    Guarantee: every level lies in [-most, most]; by chance, expectation(level x scale / most) = value.
    """
    scales = scales.astype(np.float64)
    units = np.divide(float(most), scales, out=np.zeros_like(scales), where=scales > 0)
    wide = values.astype(np.float64) * units
    shift = 0.5 if draws is None else np.ldexp(draws.astype(np.float64), -DRAW_BITS)
    levels: Levels = np.clip(np.floor(wide + shift), -most, most).astype(np.int64)
    return levels


def decode_levels(levels: Levels, scales: NDArray[Any], most: int) -> NDArray[np.float32]:
    """Return the values that levels stand for; finite wherever the scales are."""
    return (levels * (scales.astype(np.float64) / most)).astype(np.float32)


def encode_half(values: NDArray[np.float32], form: HalfFormat) -> bytes:
    """Return values as 16-bit floats, rounded to nearest, ties to even.

    Raises: CodecError if a value is beyond the format's range.
    """
    with np.errstate(over="ignore"):
        words = values.astype("<f2").view("<u2") if form == "float16" else _bfloat16(values)
    data = words.astype("<u2").tobytes()
    if not bool(np.isfinite(decode_half(data, form)).all()):
        raise CodecError(f"A value is beyond the range of {form}. Use half:bfloat16, or quantise.")
    return data


def decode_half(data: bytes | memoryview, form: HalfFormat) -> NDArray[np.float32]:
    """Return 16-bit floats as float32; whether they are finite is the caller's to check."""
    if form == "float16":
        return np.frombuffer(data, "<f2").astype(np.float32)
    wide = np.frombuffer(data, "<u2").astype(np.uint32) << FLOAT32_DROPPED_BITS
    return wide.view(np.float32)


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    wide = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    even = (wide >> FLOAT32_DROPPED_BITS) & 1
    return ((wide + 0x7FFF + even) >> FLOAT32_DROPPED_BITS).astype(np.uint32)
