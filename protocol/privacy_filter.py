"""A lifetime's privacy filter: may this patient take part in one more study? Pure.

Studies are chosen after the results of earlier ones were seen, with parameters that depend on them. Ordinary
composition theorems do not cover that; a *filter* does: a rule, fixed beforehand, that refuses whatever would exceed a
preset budget. Each patient has a filter of their own, fed with the events of the studies that touched them.

`renyi`   The sum of the events' Rényi divergences at ONE order stays within the divergence that implies the lifetime's
          (epsilon, delta). The theorem holds at one order, fixed beforehand. Taking the best of several orders at
          the end is not covered: which order is best depends on the studies, hence on the data; it would need a union
          bound, which splits delta among the orders. The order is therefore preset with the budget (`choose_order`).
`sum`     The studies' epsilons, each by its privacy loss distribution, and their deltas are added.

What the fixed order costs: with few large studies (as large as the budget, at the same delta) `renyi` admits fewer than
`sum`, down to none where `sum` admits one; with many small ones it admits several times as many. Choose before use.

Source: Feldman and Zrnic 2021, arXiv:2008.11193 (individual Rényi filters); Rogers et al. 2016, arXiv:1605.08294
(basic composition as a filter); Canonne, Kamath, Steinke 2020, arXiv:2004.00010, Proposition 12 and Balle et al. 2020,
arXiv:1905.09982 (divergence to epsilon, as dp-accounting does); Mironov, Talwar, Zhang 2019, arXiv:1908.10530 (sampled
Gaussian); Bun and Steinke 2016, arXiv:1605.02065 (pure epsilon to divergence).

    >>> budget = preset_budget(24.0, 1e-3, maximum_epsilon=8.0, maximum_delta=1e-4)
    >>> budget.order
    2
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from protocol.errors import AccountingError
from protocol.privacy_accounting import calibrate_noise, epsilon_of, rough_noise
from protocol.privacy_events import PrivacyEvent
from protocol.skellam import divergences_at, step_divergences

Composition = Literal["renyi", "sum"]
Cost = tuple[float, float]
"""What something costs a patient: (divergence at the budget's order, 0) or (epsilon, delta)."""

FREE: Cost = (0.0, 0.0)
ROUNDING = 1e-9
TYPICAL_SAMPLING_RATE = 0.1
TYPICAL_STEPS = 100
LARGEST_TYPICAL_EPSILON = 16.0
LARGEST_TYPICAL_DELTA = 0.01
LOOSEST_ROUGH_NOISE = (1, 2, 4)
"""The rough noise, which doubles until it is enough, is less than four times the least that is enough (measured)."""
SMALLEST_NOISE, LARGEST_NOISE = 1e-2, 1e5


class LifetimeBudget(BaseModel):
    """The budget of every patient of a site over all studies. Preset: what it was at first use stands in the ledger."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float = Field(gt=0, lt=1)
    composition: Composition = "renyi"
    order: int | None = Field(default=None, ge=2)

    @property
    def limit(self) -> Cost:
        """Return the most that a patient may be charged."""
        if self.composition == "sum":
            return (self.epsilon, self.delta)
        return (max(0.0, divergence_for(self.epsilon, self.delta, self._order)) * (1 - 2 * ROUNDING), 0.0)

    def cost(self, events: Sequence[PrivacyEvent], delta: float) -> Cost:
        """Return what a study's events, stated at this delta, cost a patient whom they touch."""
        if not events:
            return FREE
        if self.composition == "sum":
            return (epsilon_of(events, delta), delta)
        return (renyi_divergence(events, self._order), 0.0)

    def fits(self, spent: Cost, cost: Cost) -> bool:
        """Tell whether a patient who has spent so much may be charged so much more. Nothing always fits."""
        return cost == FREE or all(
            had + more <= most * (1 + ROUNDING) for had, more, most in zip(spent, cost, self.limit, strict=True)
        )

    def epsilon_spent(self, spent: Cost) -> float:
        """Return what a patient has spent as an epsilon, at the lifetime's delta (`sum`: at the deltas added)."""
        if self.composition == "sum" or spent == FREE:
            return spent[0]
        return epsilon_from(spent[0], self.delta, self._order)

    @property
    def _order(self) -> int:
        if self.order is None:
            raise AccountingError("A Renyi budget states its order.")
        return self.order


def preset_budget(
    epsilon: float, delta: float, *, maximum_epsilon: float, maximum_delta: float, composition: Composition = "renyi"
) -> LifetimeBudget:
    """Return the budget that a policy presets, its order chosen for studies at the policy's cap."""
    order = choose_order(epsilon, delta, maximum_epsilon, maximum_delta) if composition == "renyi" else None
    return LifetimeBudget(epsilon=epsilon, delta=delta, composition=composition, order=order)


@lru_cache(maxsize=64)
def choose_order(epsilon: float, delta: float, maximum_epsilon: float, maximum_delta: float) -> int:
    """Return the order at which most typical studies fit: 100 steps at sampling rate 0.1 that spend the cap.

    Guarantee: a function of the policy alone, never of what was done with patients.
        Whole orders only: they have a closed form, and the best order lies between 2 and 5 for lifetimes from
        epsilon 3 to 24 (measured for rates 0.02 to 1 and 1 to 2000 steps; the order hardly depends on them).
    """
    target = min(maximum_epsilon, epsilon, LARGEST_TYPICAL_EPSILON)
    typical = (TYPICAL_SAMPLING_RATE, TYPICAL_STEPS, target, min(maximum_delta, delta, LARGEST_TYPICAL_DELTA))
    enough = rough_noise(*typical)
    # The noise itself is dear to find. Mostly one order is the best for all the noise that it can be.
    orders = {_best_order(epsilon, delta, enough / part) for part in LOOSEST_ROUGH_NOISE}
    return orders.pop() if len(orders) == 1 else _best_order(epsilon, delta, calibrate_noise(*typical))


def _best_order(epsilon: float, delta: float, noise: float) -> int:
    from protocol.accountants import ORDERS, sampled_gaussian_divergences

    divergences = sampled_gaussian_divergences(TYPICAL_SAMPLING_RATE, noise, ORDERS)
    studies = {order: divergence_for(epsilon, delta, order) / one for order, one in divergences.items()}
    return int(max(ORDERS, key=lambda order: studies[order]))


def divergence_for(epsilon: float, delta: float, order: int) -> float:
    """Return the Rényi divergence at an order that implies (epsilon, delta); not positive where none does."""
    return epsilon - math.log1p(-1 / order) + math.log(delta * order) / (order - 1)


def epsilon_from(divergence: float, delta: float, order: int) -> float:
    """Return the epsilon that a divergence at an order implies; the inverse of `divergence_for`."""
    return max(0.0, divergence + math.log1p(-1 / order) - math.log(delta * order) / (order - 1))


def renyi_divergence(events: Iterable[PrivacyEvent], order: int) -> float:
    """Return the Rényi divergence of events on the same patients at one order: it adds up.

    Raises: AccountingError if a mechanism is not known.
    """
    return math.fsum(event.count * _of_one(event.model_copy(update={"count": 1}), order) for event in events)


def typical_event(noise_multiplier: float) -> PrivacyEvent:
    """Return the event of a typical study with this noise."""
    return PrivacyEvent(
        mechanism="poisson-gaussian",
        sampling_rate=TYPICAL_SAMPLING_RATE,
        noise_multiplier=noise_multiplier,
        count=TYPICAL_STEPS,
    )


def largest_epsilon(
    budget: LifetimeBudget,
    spent: Cost,
    delta: float,
    event_of: Callable[[float], PrivacyEvent] = typical_event,
) -> float:
    """Return the largest epsilon of a study that still fits a patient; 0 for none.

    `event_of` gives the study's event for a noise multiplier; the least noise that fits is looked for.
    """
    left = [most - had for most, had in zip(budget.limit, spent, strict=True)]
    if budget.composition == "sum":
        return max(0.0, left[0]) if delta <= left[1] * (1 + ROUNDING) else 0.0
    low, high = SMALLEST_NOISE, LARGEST_NOISE
    if left[0] <= 0 or not budget.fits(spent, budget.cost([event_of(high)], delta)):
        return 0.0
    while high - low > 1e-4 * high:
        middle = math.sqrt(low * high)
        if budget.fits(spent, budget.cost([event_of(middle)], delta)):
            high = middle
        else:
            low = middle
    return epsilon_of([event_of(high)], delta)


def _sampled_gaussian(event: PrivacyEvent, order: int) -> float:
    from protocol.accountants import sampled_gaussian_divergence

    return sampled_gaussian_divergence(event.sampling_rate, event.noise_multiplier, order)


def _sampled_skellam(event: PrivacyEvent, order: int) -> float:
    return float(divergences_at([order], step_divergences(event.sampling_rate, event.noise_multiplier))[0])


def _discrete_laplace(event: PrivacyEvent, order: int) -> float:
    # Two-sided geometric noise of ratio exp(-e) at a shift of 1. Summed over the integers this is exactly Bun and
    # Steinke's bound for any e-private mechanism: log of (exp(e (a-1)) + exp(-e a)) / (1 + exp(-e)), over a-1.
    pure = 1.0 / event.noise_multiplier
    larger, smaller = pure * (order - 1), math.log1p(math.exp(-pure * (2 * order - 1)))
    return (larger + smaller - math.log1p(math.exp(-pure))) / (order - 1)


MECHANISMS: dict[str, Callable[[PrivacyEvent, int], float]] = {
    "poisson-gaussian": _sampled_gaussian,
    "poisson-skellam": _sampled_skellam,
    "discrete-laplace": _discrete_laplace,
}
"""Each mechanism's Rényi divergence at an order: of one use, whatever the event's count."""


@lru_cache(maxsize=4096)
def _of_one(event: PrivacyEvent, order: int) -> float:
    if event.mechanism not in MECHANISMS:
        raise AccountingError(f"No Renyi divergence is known for the mechanism {event.mechanism!r}.")
    return MECHANISMS[event.mechanism](event, order)
