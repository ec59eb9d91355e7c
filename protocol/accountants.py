"""dp-accounting's distributions and divergences, as this project composes them.

Apart from `privacy_accounting.py`, which imports this file when something is first asked: dp-accounting and SciPy take
70 MB and most of a second, and most processes of a hub and a site ask for nothing.
Source: Google dp-accounting; see `privacy_accounting.py`.
"""

from functools import lru_cache

import dp_accounting
from dp_accounting.pld.privacy_loss_distribution import (
    PrivacyLossDistribution,
    from_discrete_laplace_mechanism,
    from_gaussian_mechanism,
    identity,
)
from dp_accounting.rdp import RdpAccountant

from protocol.errors import AccountingError
from protocol.skellam import divergences_at, step_divergences

# Coarser steps of the privacy loss are faster and only ever over-estimate epsilon (by less than 0.001 here).
LOSS_STEP = 1e-3
ORDERS = [*range(2, 33), 40, 48, 64, 96, 128, 256, 512]  # whole orders have a closed form
FINE_ORDERS = [*(2 + quarter / 4 for quarter in range(25)), *range(9, 33), 40, 48, 64, 96, 128, 192, 256]
NEIGHBOURS = dp_accounting.NeighboringRelation.REPLACE_SPECIAL
KEPT_STEPS = 4

MechanismKey = tuple[str, float, float]
"""Mechanism, sampling rate, noise multiplier."""
Merged = tuple[tuple[MechanismKey, int], ...]
"""Different mechanisms, each with how often it ran."""


def epsilon_by_loss(merged: Merged, delta: float) -> float:
    """Return epsilon at this delta by the privacy loss distribution of the composition.

    Raises: AccountingError for a mechanism that has none.
    """
    total = identity(value_discretization_interval=LOSS_STEP)
    for key, count in merged:
        total = total.compose(_single(key).self_compose(count))
    return float(total.get_epsilon_for_delta(delta))


def epsilon_by_divergence(merged: Merged, delta: float, *, fine: bool) -> float:
    """Return epsilon at this delta by the Rényi divergence of the composition, at the best of the orders.

    Raises: AccountingError for a mechanism that has none.
    """
    accountant = _RenyiAccountant(FINE_ORDERS if fine else ORDERS, NEIGHBOURS)
    for (mechanism, sampling_rate, noise), count in merged:
        if mechanism == "poisson-skellam":
            accountant.compose_skellam(sampling_rate, noise, count)
        elif mechanism == "poisson-gaussian":
            accountant.compose(_sampled_gaussian(sampling_rate, noise), count)
        else:
            raise _unknown(mechanism)
    return float(accountant.get_epsilon(delta))


def sampled_gaussian_divergence(sampling_rate: float, noise: float, order: int) -> float:
    """Return the Rényi divergence of one sampled Gaussian step at an order."""
    return sampled_gaussian_divergences(sampling_rate, noise, [order])[order]


def sampled_gaussian_divergences(sampling_rate: float, noise: float, orders: list[int]) -> dict[int, float]:
    """Return the Rényi divergence of one sampled Gaussian step at each of some orders."""
    accountant = RdpAccountant(orders, NEIGHBOURS)
    accountant.compose(_sampled_gaussian(sampling_rate, noise))
    return {order: float(divergence) for order, divergence in zip(orders, accountant.rdp, strict=True)}


class _RenyiAccountant(RdpAccountant):  # type: ignore[misc]  # dp-accounting has no types
    """dp-accounting's, which has no Skellam mechanism; its divergences are added to the others'."""

    def compose_skellam(self, rate: float, noise: float, count: int) -> None:
        self._rdp += count * divergences_at(self._orders, step_divergences(rate, noise))


# A study has one kind of step and asks for it round after round: to make its distribution is most of the work.
@lru_cache(maxsize=KEPT_STEPS)
def _single(key: MechanismKey) -> PrivacyLossDistribution:
    mechanism, sampling_rate, noise = key
    if mechanism == "discrete-laplace":
        return from_discrete_laplace_mechanism(1.0 / noise, 1, value_discretization_interval=LOSS_STEP)
    if mechanism == "poisson-gaussian":
        return from_gaussian_mechanism(
            noise,
            value_discretization_interval=LOSS_STEP,
            sampling_prob=sampling_rate,
            neighboring_relation=NEIGHBOURS,
        )
    raise _unknown(mechanism)


def _sampled_gaussian(sampling_rate: float, noise: float) -> dp_accounting.DpEvent:
    return dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise))


def _unknown(mechanism: str) -> AccountingError:
    return AccountingError(f"The accountant does not know the mechanism {mechanism!r} with these parameters.")
