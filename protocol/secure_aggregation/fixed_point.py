"""Floats to bounded integers and back, with stochastic rounding: the expectation of a rounded value is the value.

    step = value_range / levels;   q = floor(x / step + u), u uniform in [0, 1), x cut to +-value_range

Guarantee: -levels <= q <= levels. With |x / step| <= levels: floor(levels + u) = levels because u < 1, and
floor(-levels + u) >= -levels. In float64 the sum is exact enough that it never rounds up to levels + 1: u has 32 bits
after the point, levels at most 20 before it, 52 in all, and float64 holds 53.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.errors import MaskingError
from protocol.secure_aggregation.ring import Integers

MOST_LEVELS = (1 << 20) - 1
DRAW_BITS = 32


def quantise(
    values: NDArray[Any], value_range: float, levels: int, draws: NDArray[np.uint32], weight: float = 1.0
) -> Integers:
    """Return weight * values as integers in units of value_range / levels, rounded by chance.

    Shapes: values (value,) float; draws (value,) uint32, uniform and secret; result (value,) int64.
    Guarantee: every result lies in [-levels, levels]; values within the range are rounded without bias.
    Raises: MaskingError if a value is not finite, or a bound is unusable.
    """
    if not 0 < levels <= MOST_LEVELS or not value_range > 0 or not 0 < weight <= 1:
        raise MaskingError("Expected positive levels of at most 20 bits, a positive range and a weight of at most 1.")
    wide = values.astype(np.float64)
    if not bool(np.isfinite(wide).all()):
        raise MaskingError("An update must be finite before it is rounded.")
    wide *= weight * levels / value_range
    np.clip(wide, -levels, levels, out=wide)
    wide += np.ldexp(draws.astype(np.float64), -DRAW_BITS)
    return np.floor(wide, out=wide).astype(np.int64)


def cut_fraction(values: NDArray[Any], value_range: float, weight: float = 1.0) -> float:
    """Return the fraction of values beyond the range; for the site's own log."""
    return float(np.mean(np.abs(values) * weight > value_range)) if values.size else 0.0


def dequantise(total: Integers, unit: float, weights_sum: float) -> NDArray[np.float32]:
    """Return the weighted mean that a sum of integers stands for: total * unit / weights_sum.

    Raises: MaskingError if the sum of weights is not positive.
    """
    if not weights_sum > 0:
        raise MaskingError("The sum of the sites' weights is not positive.")
    return (total.astype(np.float64) * (unit / weights_sum)).astype(np.float32)
