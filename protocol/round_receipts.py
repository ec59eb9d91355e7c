"""The receipt that travels with each update: of how many patients it was made, as far as that may leave a hospital.

How many of the told patients a round still has follows from patients: an opt-out between two rounds. So the number
leaves with two-sided geometric noise of scale 1 / `privacy.receipt_epsilon`, drawn afresh for each task, in every
receipt and whatever it is; or not at all. It is charged before the study starts, for the most tasks that a hospital may
be given: a patient is one of each round's number or is not, so that each receipt is one use of the discrete Laplace
mechanism. It counts whom the told number counts: where that is exact, also those whose budget is spent, who are not
charged, so that how many they are is not told. How many images were used, and why somebody was skipped, stays at the
hospital (`wardround site receipts`).

What the noise can explain is not held against a hospital: a round is *short* where fewer than nine tenths of the told
number took part even at the upper end of an interval that errs once in a hundred times, alone or in the mean of the
last rounds. The mean's interval is Chernoff's bound for a sum of two-sided geometric numbers.

Sources: Ghosh, Roughgarden and Sundararajan 2009, arXiv:0811.2841 (two-sided geometric noise); Chernoff 1952,
doi:10.1214/aoms/1177729330.

    >>> noise_within(1.0)  # 2 e^-5 / (1 + e^-1) = 0.0099
    4.0
    >>> used_of([118], told=200, epsilon=0.5).is_short, used_of([176], told=200, epsilon=0.5).is_short
    (True, False)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from protocol.message import Count
from protocol.privacy_events import PrivacyEvent
from protocol.privacy_terms import Privacy

LEAST_SHARE = 0.9
"""A round that trained on less of the told number is told loudly."""
ERRS = 0.01
"""How often an interval misses the exact number."""
ROUNDS_TOGETHER = 10
LARGEST = 1 << 52
"""Of a noised number, either way: what canonical JSON writes exactly."""
_TILTS = 200


class RoundReceipt(BaseModel):
    """What an update's hospital says of its making. `patients` is noised, and may be below 0; None: not told.

    `told` is the number of training patients of the approval, `steps` how many local steps were taken.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    told: Count
    patients: Annotated[int, Field(ge=-LARGEST, le=LARGEST)] | None = None
    noise_epsilon: float | None = Field(default=None, gt=0, le=1000)
    steps: Annotated[int, Field(ge=1, le=1_000_000)]
    software: Annotated[str, Field(max_length=40, pattern=r"^[0-9][0-9A-Za-z.+-]*$")]


@dataclass(frozen=True)
class UsedPatients:
    """How many patients a hospital's round used, of `told`: the noised number, and where the exact one lies.

    `mean_low`, `mean_high`: of the last `rounds` receipts together. `told_low`: what the told number is at least.
    """

    patients: int
    low: float
    high: float
    told: int
    told_low: float
    rounds: int
    mean: float
    mean_low: float
    mean_high: float

    @property
    def is_short(self) -> bool:
        """Tell whether the noise cannot explain that so few of the told patients took part."""
        return min(self.high, self.mean_high) < LEAST_SHARE * self.told_low


def receipt_events(privacy: Privacy, tasks: int) -> list[PrivacyEvent]:
    """Return the event of so many tasks' receipts; none where they tell no number."""
    if privacy.receipt_epsilon is None:
        return []
    return [PrivacyEvent(mechanism="discrete-laplace", noise_multiplier=1.0 / privacy.receipt_epsilon, count=tasks)]


def noised_use(exact: int, epsilon: float, noise_of: Callable[[int, float], Any]) -> int:
    """Return a round's number of patients as it may leave: `noise_of(count, scale)` draws two-sided geometric noise.

    Guarantee: epsilon-differentially private where a patient moves the number by at most one. It is not cut to what is
        possible, so that the mean of several rounds stays right.
    """
    return exact + int(noise_of(1, 1.0 / epsilon)[0])


def receipt_problem(receipt: RoundReceipt | None, privacy: Privacy, told: int, steps: int) -> str | None:
    """Say what of an update's receipt does not fit the study's terms, or None. Pure.

    A hospital whose release writes none yet may leave it out where the study asks for no number.
    """
    asked = privacy.receipt_epsilon
    if receipt is None:
        return None if asked is None else "is missing, and the study asks for it (privacy.receipt_epsilon)"
    if receipt.noise_epsilon != asked or (receipt.patients is None) != (asked is None):
        return "is not noised as the study says (privacy.receipt_epsilon)"
    if receipt.told != told:
        return "names another number of training patients than the approval"
    return None if receipt.steps == steps else "names other steps than the study"


def used_of(numbers: Sequence[int], *, told: int, epsilon: float, count_epsilon: float | None = None) -> UsedPatients:
    """Return what a hospital's receipts up to a round, oldest first, say of that round. Pure.

    Guarantee: each interval misses what is exact with a chance of at most `ERRS`; the mean's is of the mean.
    """
    window = numbers[-ROUNDS_TOGETHER:]
    alone, together, mean = noise_within(epsilon), noise_within(epsilon, len(window)), sum(window) / len(window)
    return UsedPatients(
        patients=numbers[-1],
        low=max(0.0, numbers[-1] - alone),
        high=max(0.0, numbers[-1] + alone),
        told=told,
        told_low=told - (0.0 if count_epsilon is None else noise_within(count_epsilon)),
        rounds=len(window),
        mean=mean,
        mean_low=max(0.0, mean - together),
        mean_high=max(0.0, mean + together),
    )


@lru_cache(maxsize=256)
def noise_within(epsilon: float, receipts: int = 1) -> float:
    """Return what the noise of one number, or of the mean of several, exceeds with a chance of at most `ERRS`.

    One number: P(|X| > k) = 2 a^(k + 1) / (1 + a) with a = e^-epsilon, exactly. The mean of n:
    P(|mean| > h) <= 2 exp(-n (t h - ln E e^tX)) for each t below epsilon, of which the best is taken.
    """
    if receipts == 1:
        decay = math.exp(-epsilon)
        return float(max(0, math.ceil(math.log(2.0 / (ERRS * (1.0 + decay))) / epsilon) - 1))
    needed = math.log(2.0 / ERRS) / receipts
    tilts = [epsilon * step / _TILTS for step in range(1, _TILTS)]
    return min((needed + _log_moment(epsilon, tilt)) / tilt for tilt in tilts)


def _log_moment(epsilon: float, tilt: float) -> float:
    """Return ln E e^(tilt X) = ln (1 - a)^2 / ((1 - a e^tilt) (1 - a e^-tilt))."""
    return (
        2.0 * math.log(-math.expm1(-epsilon))
        - math.log(-math.expm1(tilt - epsilon))
        - math.log(-math.expm1(-tilt - epsilon))
    )
