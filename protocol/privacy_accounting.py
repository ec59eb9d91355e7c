"""Privacy accounting: events in, epsilon out. Used by the ledger, the launch preview and the audit alike.

The ledger stores events, not epsilons; epsilon is recomputed from them. The unit is the patient. The neighbouring
relation is dp-accounting's REPLACE_SPECIAL: one patient's data is replaced by nothing, while the site's number of
training patients is a public figure that the site approves.
Source: Google dp-accounting (privacy loss distributions: Koskela et al. 2020, Doroshenko et al. 2022; connect-the-dots
upper bound), Abadi et al. 2016 for the sampled Gaussian mechanism.

    >>> noise = calibrate_noise(sampling_rate=0.1, steps=100, epsilon=8.0, delta=1e-5)
    >>> event = PrivacyEvent(mechanism="poisson-gaussian", sampling_rate=0.1, noise_multiplier=noise, count=100)
    >>> 7.9 < epsilon_of([event], 1e-5) <= 8.0
    True
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import dp_accounting
from dp_accounting.dp_event import DiscreteLaplaceDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from protocol.errors import AccountingError
from protocol.privacy_events import PrivacyEvent
from protocol.shared_noise import shared_noise_of
from protocol.site_level import check_site_noise
from protocol.skellam import divergences_at, step_divergences
from protocol.study import StudySpec

__all__ = ["PrivacyEvent", "calibrate_noise", "epsilon_of", "histogram_event", "noise_multiplier_of", "training_event"]

# Coarser steps of the privacy loss are faster and only ever over-estimate epsilon (by less than 0.001 here).
LOSS_STEP = 1e-3
NOISE_TOLERANCE = 1e-3
LARGEST_NOISE = 1000.0

LARGEST_USEFUL_EPSILON = 200.0
ORDERS = [*range(2, 33), 40, 48, 64, 96, 128, 256, 512]  # whole orders have a closed form
FINE_ORDERS = [*(2 + quarter / 4 for quarter in range(25)), *range(9, 33), 40, 48, 64, 96, 128, 192, 256]
NEIGHBOURS = dp_accounting.NeighboringRelation.REPLACE_SPECIAL

_Key = tuple[str, float, float]
Noise = Literal["gaussian", "skellam"]
_Merged = tuple[tuple[_Key, int], ...]


def epsilon_of(events: Sequence[PrivacyEvent], delta: float) -> float:
    """Compose events on the same patients and return epsilon at this delta; 0 for none.

    Guarantee: an upper bound. Equal mechanisms are merged first, and compositions are cached.
    """
    merged: Counter[_Key] = Counter()
    for event in events:
        merged[(event.mechanism, event.sampling_rate, event.noise_multiplier)] += event.count
    return _composed_epsilon(tuple(sorted(merged.items())), delta) if merged else 0.0


@lru_cache(maxsize=4096)
def calibrate_noise(sampling_rate: float, steps: int, epsilon: float, delta: float, noise: Noise = "gaussian") -> float:
    """Return the smallest noise multiplier whose `steps` sampled steps stay within (epsilon, delta).

    Guarantee: `epsilon_of` the steps with this noise is at most epsilon.
    Raises: AccountingError if no noise up to 1000 is enough.
    """

    def epsilon_with(multiplier: float) -> float:
        return _composed_epsilon((((f"poisson-{noise}", sampling_rate, multiplier), steps),), delta)

    high = _rough_noise(sampling_rate, steps, epsilon, delta)
    low = high / 2
    while epsilon_with(low) <= epsilon:
        low, high = low / 2, low
    while epsilon_with(high) > epsilon:
        low, high = high, 2 * high
    while high - low > NOISE_TOLERANCE * high:
        middle = (low + high) / 2
        if epsilon_with(middle) > epsilon:
            low = middle
        else:
            high = middle
    return high


def noise_multiplier_of(study: StudySpec) -> float | None:
    """Return the noise that a study needs over the most steps it may take; None without privacy.epsilon."""
    if study.privacy.epsilon is None:
        return None
    rate, steps, noise = _one_task(study)
    most_steps = study.maximum_training_tasks * steps
    multiplier = calibrate_noise(rate, most_steps, study.privacy.epsilon, study.privacy.delta, noise)
    if noise == "skellam":
        shared_noise_of(study).check_noise(multiplier)
    if study.privacy.mechanism == "site-level":
        check_site_noise(study.privacy, multiplier)
    return multiplier


def training_event(study: StudySpec, noise_multiplier: float, tasks: int) -> PrivacyEvent:
    """Return the event of so many training tasks of a study."""
    rate, steps, noise = _one_task(study)
    return PrivacyEvent(
        mechanism="poisson-skellam" if noise == "skellam" else "poisson-gaussian",
        sampling_rate=rate,
        noise_multiplier=noise_multiplier,
        count=tasks * steps,
    )


def histogram_event(noise_epsilon: float, evaluations: int) -> PrivacyEvent:
    """Return the event of so many noised histograms: a patient is in one bin of one histogram each time."""
    return PrivacyEvent(mechanism="discrete-laplace", noise_multiplier=1.0 / noise_epsilon, count=evaluations)


def maximum_evaluations(study: StudySpec) -> int:
    """Return the most evaluations a site does: one a version, version 0 among them, and what the study allows. Pure."""
    return min(study.evaluation.at_most, study.maximum_training_tasks + 1)


def _one_task(study: StudySpec) -> tuple[float, int, Noise]:
    """Return a training task's sampling rate, its number of noised steps, and the noise."""
    if study.privacy.mechanism == "site-level":
        return 1.0, 1, "gaussian"  # a site's update is noised once a round, whatever it was trained on
    kind: Noise = "skellam" if study.privacy.mechanism == "shared-noise" else "gaussian"
    return study.training.sampling_rate, study.training.local_steps, kind


def _rough_noise(sampling_rate: float, steps: int, epsilon: float, delta: float) -> float:
    # RDP is quick and over-estimates epsilon, so its noise is enough; the loss distribution then needs less.
    noise = 0.25
    while _rough_epsilon(((("poisson-gaussian", sampling_rate, noise), steps),), delta) > epsilon:
        noise *= 2
        if noise > LARGEST_NOISE:
            raise AccountingError(
                f"No noise up to {LARGEST_NOISE:g} keeps {steps} steps within epsilon {epsilon:g}. "
                "Raise epsilon or delta, take fewer rounds or steps, or lower training.sampling_rate."
            )
    return noise


@lru_cache(maxsize=4096)
def _composed_epsilon(merged: _Merged, delta: float) -> float:
    rough = _rough_epsilon(merged, delta)
    if rough > LARGEST_USEFUL_EPSILON or _has_skellam(merged):
        return rough  # an upper bound too; the loss distribution of no privacy at all would fill the memory
    accountant = PLDAccountant(NEIGHBOURS, value_discretization_interval=LOSS_STEP)
    return min(rough, float(_composed(accountant, merged).get_epsilon(delta)))


def _rough_epsilon(merged: _Merged, delta: float) -> float:
    # Rényi for what has noise on sums; pure epsilons simply add.
    pure = sum(count / noise for (mechanism, _, noise), count in merged if mechanism == "discrete-laplace")
    sampled = tuple(entry for entry in merged if entry[0][0] != "discrete-laplace")
    if not sampled:
        return float(pure)
    accountant = _RenyiAccountant(FINE_ORDERS if _has_skellam(merged) else ORDERS, NEIGHBOURS)
    return float(pure + _composed(accountant, sampled).get_epsilon(delta))


class _RenyiAccountant(RdpAccountant):  # type: ignore[misc]  # dp-accounting has no types
    """dp-accounting's, which has no Skellam mechanism; its divergences are added to the others'."""

    def compose_skellam(self, rate: float, noise: float, count: int) -> None:
        self._rdp += count * divergences_at(self._orders, step_divergences(rate, noise))


def _has_skellam(merged: _Merged) -> bool:
    return any(mechanism == "poisson-skellam" for (mechanism, *_), _ in merged)


def _composed(accountant: dp_accounting.PrivacyAccountant, merged: _Merged) -> dp_accounting.PrivacyAccountant:
    for (mechanism, sampling_rate, noise), count in merged:
        if isinstance(accountant, _RenyiAccountant) and mechanism == "poisson-skellam":
            accountant.compose_skellam(sampling_rate, noise, count)
            continue
        event = _dp_event(mechanism, sampling_rate, noise)
        if not accountant.supports(event):
            raise AccountingError(f"The accountant does not know the mechanism {mechanism!r} with these parameters.")
        accountant.compose(event, count)
    return accountant


def _dp_event(mechanism: str, sampling_rate: float, noise: float) -> dp_accounting.DpEvent:
    if mechanism == "discrete-laplace":
        return DiscreteLaplaceDpEvent(1.0 / noise, 1)
    return dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise))
