"""Skellam noise from the site's secret stream: whole numbers, exact but for a stated error, many at once.

Rejection from a two-sided geometric-like number, which needs no logarithm of a uniform number in its fine part: the
magnitude is u + t v with u uniform below t (about the standard deviation) and v geometric with P(v) proportional to
e^-v. It is kept with probability exp(-u/t) x p(magnitude) / p(0) x e^(v + u/t) / most; the first factor makes the
magnitude geometric, the rest turns that into Skellam. About half of the candidates are kept.

The Skellam probability e^-m I_k(m) comes from the uniform (Debye) expansion of the Bessel function, whose terms fall
like powers of 1/sqrt(k^2 + m^2), so that it needs a large variance (`LEAST_VARIANCE`) and no table.

What is not exact: within nine standard deviations each probability carries a relative error below 2**-40 (float64
arithmetic; decisions compare random bits), which over ten million values is less than 2e-5 of privacy loss, whatever
was drawn. Beyond lies a mass of 3e-19, whose probabilities are less exact, and beyond 14 deviations nothing is drawn.
The time of drawing depends on the stream alone, never on a patient.

Sources: NIST Handbook (DLMF) 10.41.3 and 10.41.10 (expansion of I); Canonne, Kamath and Steinke 2020, arXiv:2004.00010,
Algorithm 3 (rejection from a discrete Laplace number); Skellam 1946.
"""

import math

import numpy as np
from numpy.typing import NDArray

from protocol.skellam import LEAST_VARIANCE
from site_node.privacy.noise import Floats, SecureStream, Words

Whole = NDArray[np.int64]

LARGEST_VARIANCE = float(1 << 80)
CANDIDATES_AT_ONCE = 1 << 18


def skellam_noise(stream: SecureStream, count: int, variance: float) -> Whole:
    """Draw independent Skellam numbers of mean zero.

    Shapes: result (count,) int64.
    Guarantee: each value has its Skellam probability up to the error that the module states; the same stream gives the
        same numbers.
    Raises: ValueError if the variance is not from `LEAST_VARIANCE` to `LARGEST_VARIANCE`.
    """
    if not LEAST_VARIANCE <= variance <= LARGEST_VARIANCE:
        raise ValueError(f"Expected a variance of {LEAST_VARIANCE:g} to {LARGEST_VARIANCE:g} squared grid steps.")
    scale = round(math.sqrt(variance))
    most = _largest_log_ratio(variance, scale)
    result = np.empty(count, np.int64)
    filled = 0
    while filled < count:
        wanted = min(CANDIDATES_AT_ONCE, 2 * (count - filled) + 64)
        kept = _kept(stream, wanted, variance, scale, most)[: count - filled]
        result[filled : filled + kept.size] = kept
        filled += kept.size
    return result


def log_probability_ratio(values: Floats, variance: float) -> Floats:
    """Return log p(k) - log p(0) of the Skellam distribution, for large variances."""
    root = np.hypot(values, variance)
    # root - variance, without cancellation
    bulk = values * values / (root + variance) - values * np.arcsinh(values / variance)
    return bulk - 0.5 * np.log(root / variance) + _debye(values, root) - float(_debye(np.zeros(1), variance)[0])


def _debye(values: Floats, root: Floats | float) -> Floats:
    # log(1 + U1/k + U2/k^2 + U3/k^3), written in s = (k / root)^2 so that k = 0 is no exception.
    s = np.square(values / root)
    first = (3 - 5 * s) / (24 * root)
    second = (81 - 462 * s + 385 * s**2) / (1152 * root**2)
    third = (30375 - 369603 * s + 765765 * s**2 - 425425 * s**3) / (414720 * root**3)
    result: Floats = np.log1p(first + second + third)
    return result


def _kept(stream: SecureStream, count: int, variance: float, scale: int, most: float) -> Whole:
    fine, negative, usable = _below(stream.words(count), scale)
    coarse = np.floor(-np.log(stream.uniforms(count)))
    # Two decisions with the root of the probability each: a 64-bit number is too coarse for one of 2**-48.
    least_favourable = np.maximum(stream.uniforms(count), stream.uniforms(count))
    magnitude = fine + scale * coarse
    # exp(-u/t) and the geometric density's exp(u/t) cancel: e^v is what remains of the candidate's density.
    log_kept = log_probability_ratio(magnitude, variance) + coarse - most
    kept = usable & (least_favourable <= np.exp(0.5 * np.minimum(log_kept, 0.0))) & ~(negative & (magnitude == 0))
    signed: Whole = np.where(negative, -magnitude, magnitude)[kept].astype(np.int64)
    return signed


def _below(words: Words, scale: int) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    # One bit is the sign; the other 63 make a number below scale, and the last, incomplete turn is not usable.
    numbers = words >> np.uint64(1)
    whole_turns = ((1 << 63) // scale) * scale
    fine = (numbers % np.uint64(scale)).astype(np.float64)
    return fine, (words & np.uint64(1)).astype(bool), numbers < np.uint64(whole_turns)


def _largest_log_ratio(variance: float, scale: int) -> float:
    # log p(k)/p(0) + floor(k/t) falls within a step of t, because p falls: the largest stands at a multiple of t.
    starts = scale * np.arange(0, 8, dtype=np.float64)
    return float((log_probability_ratio(starts, variance) + np.arange(8)).max())
