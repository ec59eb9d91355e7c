"""The number of training patients as it leaves a hospital that noises it, and every noised figure, charged.

The exact number weighs a hospital's updates, divides its sums and is what delta is judged by. With
`privacy.count_epsilon` nobody but the hospital knows it: two-sided geometric noise is added once, before the study is
approved, and whatever needs the number, at the hospital too, takes the told one. A patient is one of it or is not, so
that one use of the discrete Laplace mechanism covers it; and because nothing else depends on the exact number, the
whole study's guarantee then also holds for a patient who is there or is not (add or remove one).

Source: Ghosh, Roughgarden and Sundararajan 2009, arXiv:0811.2841 (two-sided geometric noise).

    >>> told_count(97, 10, 0.5, lambda count, scale: [-4] * count)
    93
    >>> told_count(12, 10, 0.5, lambda count, scale: [-4] * count)  # the study's minimum is public
    10
"""

import math
from collections.abc import Callable
from typing import Any

from protocol.privacy_events import PrivacyEvent
from protocol.privacy_terms import Privacy
from protocol.round_receipts import receipt_events
from protocol.site_rates import quality_events
from protocol.study import StudySpec

LONGEST_DRAW = 64 * math.log(2)
"""Noise that is drawn from uniform numbers of 64 bits is never longer than so many scales."""


def told_count(exact: int, least: int, epsilon: float, noise_of: Callable[[int, float], Any]) -> int:
    """Return a number of patients as it may leave: `noise_of(count, scale)` draws two-sided geometric noise.

    Guarantee: epsilon-differentially private where a patient moves the number by at most one; raising it to `least`,
        which is public, is post-processing.
    """
    return max(least, exact + int(noise_of(1, 1.0 / epsilon)[0]))


def is_possible_count(told: int, exact: int, least: int, epsilon: float) -> bool:
    """Tell whether a number can have been told for an exact one: what a gate checks of its worker. Pure."""
    longest = LONGEST_DRAW / epsilon
    return max(least, math.floor(exact - longest)) <= told <= max(least, math.ceil(exact + longest))


def is_clear_of(told: int, least: int, epsilon: float, chance: float) -> bool:
    """Tell whether a noised number is so far above a minimum that the exact one is as well, but for a small chance.

    Else who answers tells more than the number: that the exact one reaches the minimum.
    """
    return told - least >= math.log(1.0 / chance) / epsilon


def count_events(privacy: Privacy) -> list[PrivacyEvent]:
    """Return the event of a study's noised number of training patients, told once; none where it is exact."""
    if privacy.count_epsilon is None:
        return []
    return [PrivacyEvent(mechanism="discrete-laplace", noise_multiplier=1.0 / privacy.count_epsilon, count=1)]


def figure_events(study: StudySpec, tasks: int | None = None) -> list[PrivacyEvent]:
    """Return the events of all noised figures of training patients: once with the approval, and in receipts of tasks.

    `tasks`: that so many have been done; None: the most that a hospital may be given.
    """
    receipts = receipt_events(study.privacy, study.maximum_training_tasks if tasks is None else tasks)
    return [*quality_events(study.site_rates), *count_events(study.privacy), *receipts]
