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

import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from protocol.errors import AccountingError
from protocol.held_out import histograms_of_split
from protocol.noised_counts import figure_events
from protocol.privacy_events import PrivacyEvent
from protocol.shared_noise import shared_noise_of
from protocol.site_level import check_site_noise
from protocol.study import StudySpec

if TYPE_CHECKING:
    from protocol.accountants import MechanismKey, Merged

__all__ = [
    "PrivacyEvent",
    "calibrate_noise",
    "epsilon_of",
    "held_out_event",
    "histogram_event",
    "noise_multiplier_of",
    "rough_noise",
    "training_event",
    "training_events",
]

NOISE_TOLERANCE = 1e-3
LARGEST_NOISE = 1000.0
SMALLEST_EPSILON = 1e-12

LARGEST_USEFUL_EPSILON = 200.0

Noise = Literal["gaussian", "skellam"]
# The sites of a round state the same events at the same moment: one thread computes, the others find it in the cache.
_COMPOSING = threading.Lock()


def epsilon_of(events: Sequence[PrivacyEvent], delta: float) -> float:
    """Compose events on the same patients and return epsilon at this delta; 0 for none.

    Guarantee: an upper bound. Equal mechanisms are merged first, and compositions are cached.
    """
    merged = _merged(events)
    if not merged:
        return 0.0
    with _COMPOSING:
        return _composed_epsilon(merged, delta)


@lru_cache(maxsize=4096)
def calibrate_noise(
    sampling_rate: float,
    steps: int,
    epsilon: float,
    delta: float,
    noise: Noise = "gaussian",
    beside: tuple[PrivacyEvent, ...] = (),
) -> float:
    """Return the smallest noise multiplier whose `steps` sampled steps stay within (epsilon, delta).

    `beside` are events of pure epsilon on the same patients, which the same epsilon covers.
    Guarantee: `epsilon_of` the steps with this noise, and of what is beside them, is at most epsilon.
    Raises: AccountingError if no noise up to 1000 is enough.
    """
    others = _merged(beside)

    def epsilon_with(multiplier: float) -> float:
        own: Merged = (((f"poisson-{noise}", sampling_rate, multiplier), steps),)
        return _composed_epsilon(tuple(sorted((*others, *own))), delta)

    high = rough_noise(sampling_rate, steps, epsilon - _rough_epsilon(others, delta), delta)
    low = high / 2
    while epsilon_with(low) <= epsilon:
        low, high = low / 2, low
    while epsilon_with(high) > epsilon:
        low, high = high, 2 * high
    return _narrowed(epsilon_with, epsilon, low, high)


def _narrowed(epsilon_with: Callable[[float], float], epsilon: float, low: float, high: float) -> float:
    """Narrow a bracket of the noise (too little, enough) to the tolerance and return what is enough.

    Epsilon is nearly a power of the noise, so a line through the logarithms hits the goal after a step or two. It is
    tried a little above and below, so that both ends close in; where that helps little, the middle is tried too.
    """

    def excess(noise: float) -> float:
        return math.log(max(epsilon_with(noise), SMALLEST_EPSILON) / epsilon)

    width, slow, above, below = 1 + NOISE_TOLERANCE / 2, False, excess(low), excess(high)
    while high - low > NOISE_TOLERANCE * high:
        before, guess = high / low, low * (high / low) ** (above / (above - below))
        for middle in (guess * width, guess / width, *([math.sqrt(low * high)] if slow else ())):
            if not low < middle < high:
                continue
            found = excess(middle)
            if found > 0:
                low, above = middle, found
            else:
                high, below = middle, found
        slow = math.log(high / low) > math.log(before) / 4
    return high


def noise_multiplier_of(study: StudySpec) -> float | None:
    """Return the noise that a study needs over the most steps it may take; None without privacy.epsilon."""
    if study.privacy.epsilon is None:
        return None
    rate, steps, noise = _one_task(study)
    most_steps = study.maximum_training_tasks * steps
    beside = tuple(figure_events(study))
    multiplier = calibrate_noise(rate, most_steps, study.privacy.epsilon, study.privacy.delta, noise, beside)
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


def training_events(study: StudySpec, noise_multiplier: float, tasks: int) -> list[PrivacyEvent]:
    """Return all that so many training tasks do to a training patient: with the noised figures, if there are any."""
    return [training_event(study, noise_multiplier, tasks), *figure_events(study, tasks)]


def histogram_event(noise_epsilon: float, evaluations: int, histograms: int = 1) -> PrivacyEvent:
    """Return the event of so many evaluations' noised histograms: a patient is in one bin of each of them.

    `noise_epsilon` is of an evaluation's histograms together, each of which has an equal part of it.
    """
    each = noise_epsilon / histograms
    return PrivacyEvent(mechanism="discrete-laplace", noise_multiplier=1.0 / each, count=evaluations * histograms)


def held_out_event(study: StudySpec) -> PrivacyEvent | None:
    """Return the event of a study's planned evaluations on held-out patients; None where they are not noised."""
    noise = study.evaluation.noise_epsilon
    if noise is None:
        return None
    return histogram_event(noise, maximum_evaluations(study), histograms_of_split(study))


def maximum_evaluations(study: StudySpec) -> int:
    """Return the most evaluations a site does: one a version, version 0 among them, and what the study allows. Pure."""
    return min(study.evaluation.at_most, study.maximum_training_tasks + 1)


def _merged(events: Sequence[PrivacyEvent]) -> "Merged":
    counts: Counter[MechanismKey] = Counter()
    for event in events:
        counts[(event.mechanism, event.sampling_rate, event.noise_multiplier)] += event.count
    return tuple(sorted(counts.items()))


def _one_task(study: StudySpec) -> tuple[float, int, Noise]:
    """Return a training task's sampling rate, its number of noised steps, and the noise."""
    if study.privacy.mechanism == "site-level":
        return 1.0, 1, "gaussian"  # a site's update is noised once a round, whatever it was trained on
    kind: Noise = "skellam" if study.privacy.mechanism == "shared-noise" else "gaussian"
    return study.training.sampling_rate, study.noised_steps, kind


def rough_noise(sampling_rate: float, steps: int, epsilon: float, delta: float) -> float:
    """Return a noise multiplier that is enough, found by doubling: quick, and above what `calibrate_noise` finds.

    RDP over-estimates epsilon, so its noise is enough; the loss distribution then needs less.
    Raises: AccountingError if no noise up to 1000 is enough.
    """
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
def _composed_epsilon(merged: "Merged", delta: float) -> float:
    from protocol.accountants import epsilon_by_loss

    rough = _rough_epsilon(merged, delta)
    if rough > LARGEST_USEFUL_EPSILON or _has_skellam(merged):
        return rough  # an upper bound too; the loss distribution of no privacy at all would fill the memory
    return min(rough, epsilon_by_loss(merged, delta))


def _rough_epsilon(merged: "Merged", delta: float) -> float:
    from protocol.accountants import epsilon_by_divergence

    # Rényi for what has noise on sums; pure epsilons simply add.
    pure = sum(count / noise for (mechanism, _, noise), count in merged if mechanism == "discrete-laplace")
    sampled = tuple(entry for entry in merged if entry[0][0] != "discrete-laplace")
    if not sampled:
        return float(pure)
    return pure + epsilon_by_divergence(sampled, delta, fine=_has_skellam(merged))


def _has_skellam(merged: "Merged") -> bool:
    return any(mechanism == "poisson-skellam" for (mechanism, *_), _ in merged)
