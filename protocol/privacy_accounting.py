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
from pydantic import BaseModel, ConfigDict, Field

from protocol.digest import canonical_json
from protocol.errors import AccountingError
from protocol.study import StudySpec

# Coarser steps of the privacy loss are faster and only ever over-estimate epsilon (by less than 0.001 here).
LOSS_STEP = 1e-3
NOISE_TOLERANCE = 1e-3
LARGEST_NOISE = 1000.0

LARGEST_USEFUL_EPSILON = 200.0
ORDERS = [*range(2, 33), 40, 48, 64, 96, 128, 256, 512]  # whole orders have a closed form
NEIGHBOURS = dp_accounting.NeighboringRelation.REPLACE_SPECIAL

_Key = tuple[str, float, float]
_Merged = tuple[tuple[_Key, int], ...]


class PrivacyEvent(BaseModel):
    """One mechanism, applied `count` times to the same patients. An event never changes its meaning.

    `poisson-gaussian`: each patient drawn with `sampling_rate`, sum of sensitivity 1 with Gaussian noise of standard
    deviation `noise_multiplier`. `discrete-laplace`: each patient changes one count by 1; two-sided geometric noise of
    scale `noise_multiplier`, which composes to a larger epsilon than continuous Laplace noise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["wardround.privacy-event/1"] = Field(default="wardround.privacy-event/1", alias="schema")
    mechanism: Literal["poisson-gaussian", "discrete-laplace"]
    sampling_rate: float = Field(default=1.0, gt=0, le=1)
    noise_multiplier: float = Field(gt=0, allow_inf_nan=False)
    count: int = Field(ge=1)

    def canonical_bytes(self) -> bytes:
        """Return the bytes that the ledger stores."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))


def epsilon_of(events: Sequence[PrivacyEvent], delta: float) -> float:
    """Compose events on the same patients and return epsilon at this delta; 0 for none.

    Guarantee: an upper bound. Equal mechanisms are merged first, and compositions are cached.
    """
    merged: Counter[_Key] = Counter()
    for event in events:
        merged[(event.mechanism, event.sampling_rate, event.noise_multiplier)] += event.count
    return _composed_epsilon(tuple(sorted(merged.items())), delta) if merged else 0.0


@lru_cache(maxsize=4096)
def calibrate_noise(sampling_rate: float, steps: int, epsilon: float, delta: float) -> float:
    """Return the smallest noise multiplier whose `steps` sampled Gaussian steps stay within (epsilon, delta).

    Guarantee: `epsilon_of` the steps with this noise is at most epsilon.
    Raises: AccountingError if no noise up to 1000 is enough.
    """
    high = _rough_noise(sampling_rate, steps, epsilon, delta)
    low = high / 2
    while _steps_epsilon(sampling_rate, low, steps, delta) <= epsilon:
        low, high = low / 2, low
    while high - low > NOISE_TOLERANCE * high:
        middle = (low + high) / 2
        if _steps_epsilon(sampling_rate, middle, steps, delta) > epsilon:
            low = middle
        else:
            high = middle
    return high


def noise_multiplier_of(study: StudySpec) -> float | None:
    """Return the noise that a study needs over the most steps it may take; None without privacy.epsilon."""
    if study.privacy.epsilon is None:
        return None
    return calibrate_noise(
        study.training.sampling_rate, study.maximum_steps, study.privacy.epsilon, study.privacy.delta
    )


def training_event(study: StudySpec, noise_multiplier: float, tasks: int) -> PrivacyEvent:
    """Return the event of so many training tasks of a study."""
    return PrivacyEvent(
        mechanism="poisson-gaussian",
        sampling_rate=study.training.sampling_rate,
        noise_multiplier=noise_multiplier,
        count=tasks * study.training.local_steps,
    )


def histogram_event(noise_epsilon: float, evaluations: int) -> PrivacyEvent:
    """Return the event of so many noised histograms: a patient is in one bin of one histogram each time."""
    return PrivacyEvent(mechanism="discrete-laplace", noise_multiplier=1.0 / noise_epsilon, count=evaluations)


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


def _steps_epsilon(sampling_rate: float, noise: float, steps: int, delta: float) -> float:
    return _composed_epsilon(((("poisson-gaussian", sampling_rate, noise), steps),), delta)


@lru_cache(maxsize=4096)
def _composed_epsilon(merged: _Merged, delta: float) -> float:
    rough = _rough_epsilon(merged, delta)
    if rough > LARGEST_USEFUL_EPSILON:
        return rough  # an upper bound too; the loss distribution of no privacy at all would fill the memory
    accountant = PLDAccountant(NEIGHBOURS, value_discretization_interval=LOSS_STEP)
    return min(rough, float(_composed(accountant, merged).get_epsilon(delta)))


def _rough_epsilon(merged: _Merged, delta: float) -> float:
    # Rényi for the Gaussians; pure epsilons simply add.
    pure = sum(count / noise for (mechanism, _, noise), count in merged if mechanism == "discrete-laplace")
    sampled = tuple(entry for entry in merged if entry[0][0] != "discrete-laplace")
    if not sampled:
        return float(pure)
    return float(pure + _composed(RdpAccountant(ORDERS, NEIGHBOURS), sampled).get_epsilon(delta))


def _composed(accountant: dp_accounting.PrivacyAccountant, merged: _Merged) -> dp_accounting.PrivacyAccountant:
    for (mechanism, sampling_rate, noise), count in merged:
        event = _dp_event(mechanism, sampling_rate, noise)
        if not accountant.supports(event):
            raise AccountingError(f"The accountant does not know the mechanism {mechanism!r} with these parameters.")
        accountant.compose(event, count)
    return accountant


def _dp_event(mechanism: str, sampling_rate: float, noise: float) -> dp_accounting.DpEvent:
    if mechanism == "discrete-laplace":
        return DiscreteLaplaceDpEvent(1.0 / noise, 1)
    return dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise))
