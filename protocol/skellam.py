"""Skellam noise: the difference of two Poisson numbers, an integer noise whose shares add up. Its accounting.

Hospitals that sum under masks add whole numbers on a ring, so their noise must be whole too. A Skellam number of
variance m is the difference of two Poisson numbers of mean m/2; sums of independent ones are Skellam again, with the
variances added. So each site adds a share, and the sum carries the noise of one central curator.

Every site puts its clipped sum on the grid first (rounds each value to a whole number of grid steps) and adds noise
then: the mechanism is integer from there on. Rounding a sum with and without a patient differs from that patient's part
by less than one step in every value, so by less than the root of their number (L2); that much is taken off the norm to
which the patient is clipped, and the whole numbers then have the sensitivity that is accounted.

There is no loss distribution of this mechanism over many values, so it is accounted in Rényi divergence, with the
published bound for whole orders. Over patients drawn by Poisson sampling it is amplified as any mechanism is; the
reverse direction is never worse, because Skellam noise is symmetric (the condition of Mironov et al., Theorem 5, met by
the reflection that exchanges the two shifted distributions).

Sources: Agarwal, Kairouz and Liu, "The Skellam mechanism for differentially private federated learning", 2021,
arXiv:2110.04995, Theorem 3.5 and Corollary 4.1; Kairouz, Liu and Steinke 2021, arXiv:2102.06387, section 4 (rounding);
Zhu and Wang 2019, "Poisson subsampled Rényi differential privacy", Theorem 6, and Mironov, Talwar and Zhang 2019,
arXiv:1908.10530, Theorem 5 (sampling); Wang, Balle and Kasiviswanathan 2019, arXiv:1808.00087 (between whole orders:
(order - 1) x divergence is convex).

    >>> round(skellam_rdp(2, 100.0, 1000.0, 10_000.0), 6)  # of a Gaussian: 2 x 100^2 / (2 x 10^4) = 1
    1.00009
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST_ORDER = 512
LEAST_CLIP_STEPS = 1 << 10
"""A coarser grid is not used; what is accounted holds for this one and every finer one."""
LEAST_VARIANCE = float(1 << 16)
"""In squared grid steps: what a site's sampler (`site_node/privacy/skellam.py`) is exact for."""


def skellam_rdp(order: int, l2_steps: float, l1_steps: float, variance: float) -> float:
    """Return a bound on the Rényi divergence between Skellam noise and itself shifted by whole numbers.

    `l2_steps`, `l1_steps`: norms of the shift; `variance`: of the noise in each value.
    Guarantee: an upper bound for whole orders of at least 2, in any number of values.
    Source: Agarwal, Kairouz and Liu 2021, Corollary 4.1 with scale 1.
    """
    gaussian = order * l2_steps**2 / (2 * variance)
    correction = ((2 * order - 1) * l2_steps**2 + 6 * l1_steps) / (4 * variance**2)
    return gaussian + min(correction, 3 * l1_steps / (2 * variance))


@lru_cache(maxsize=4096)
def step_divergences(sampling_rate: float, noise_multiplier: float) -> tuple[float, ...]:
    """Return the Rényi divergences of one sampled step at the orders 2, 3 ... `LARGEST_ORDER`.

    Guarantee: upper bounds in both directions of the neighbouring relation, on every grid of at least
        `LEAST_CLIP_STEPS` (a finer one is closer to the Gaussian) and for every number of values: a whole number is at
        most its square, so a shift's L1 norm is at most its squared L2 norm.
    """
    steps = float(LEAST_CLIP_STEPS)
    variance = (noise_multiplier * steps) ** 2
    whole = range(2, LARGEST_ORDER + 1)
    logs = np.array([(k - 1) * skellam_rdp(k, steps, steps**2, variance) for k in whole])
    return tuple(float(_sampled(order, sampling_rate, logs)) for order in whole)


def divergences_at(orders: Sequence[float], of_whole_orders: Sequence[float]) -> Floats:
    """Return divergences at any orders from 1 to the largest, from those at 2, 3, 4 ...; infinite above.

    Guarantee: upper bounds if the given ones are. Between whole orders (order - 1) x divergence lies below the chord;
        below 2 the divergence is at most that at 2.
    """
    given = np.asarray(of_whole_orders, np.float64)
    whole = np.arange(2, len(given) + 2, dtype=np.float64)
    wanted = np.maximum(np.asarray(orders, np.float64), 2.0)
    between = np.interp(wanted, whole, (whole - 1) * given) / (wanted - 1)
    return np.where(wanted > whole[-1], np.inf, between)


def _sampled(order: int, rate: float, logs: Floats) -> float:
    # log E[(1 - q + q L)^order] for the likelihood ratio L, whose k-th moment has the log (k - 1) x divergence at k.
    if rate == 1:
        return float(logs[order - 2]) / (order - 1)
    k = np.arange(order + 1)
    moments = np.concatenate([[0.0, 0.0], logs[: order - 1]])
    terms = _log_binomials(order) + k * math.log(rate) + (order - k) * math.log1p(-rate) + moments
    top = float(terms.max())
    # The first two terms and the rest nearly sum to one where noise is large; rounding may not make that negative.
    return max(0.0, top + math.log(float(np.exp(terms - top).sum()))) / (order - 1)


@lru_cache(maxsize=LARGEST_ORDER)
def _log_binomials(n: int) -> Floats:
    return np.array([math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)])
