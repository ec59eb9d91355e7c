"""Receipts of updates: their noise, their price, the interval that the noise leaves, and when a round is short."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import SpecificationError
from protocol.noised_counts import figure_events
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_events
from protocol.privacy_events import PrivacyEvent
from protocol.round_receipts import (
    ERRS,
    RoundReceipt,
    noise_within,
    noised_use,
    receipt_problem,
    used_of,
)
from tests.protocol.test_noised_counts import QUALITY, study_with

TOLD = RoundReceipt(told=100, patients=96, noise_epsilon=0.5, steps=2, software="1.0.0")


def chances(epsilon: float, widest: int = 4000) -> Any:
    """Return the chance of each noise from -widest to widest: P(k) proportional to exp(-epsilon |k|)."""
    weights = np.exp(-epsilon * np.abs(np.arange(-widest, widest + 1)))
    return weights / weights.sum()


def test_the_number_is_the_exact_one_and_the_noise_also_below_zero() -> None:
    assert noised_use(97, 0.5, lambda count, scale: [-4] * count) == 93
    assert noised_use(1, 0.5, lambda count, scale: [-int(scale)] * count) == -1


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 1.0, 3.0])
def test_the_interval_of_one_number_misses_once_in_a_hundred_times_and_no_narrower_one_would_do(epsilon: float) -> None:
    width, each = int(noise_within(epsilon)), chances(epsilon)
    middle = len(each) // 2

    def missed(within: int) -> float:
        return 1.0 - float(each[middle - within : middle + within + 1].sum())

    assert missed(width) <= ERRS < missed(width - 1) if width else missed(width) <= ERRS


def test_at_epsilon_one_the_interval_reaches_four_patients_to_each_side() -> None:
    """2 e^-5 / (1 + e^-1) = 0.0099, and 2 e^-4 / (1 + e^-1) = 0.0268."""
    assert noise_within(1.0) == 4.0


@pytest.mark.parametrize(("epsilon", "rounds"), [(0.5, 2), (0.5, 5), (0.2, 10)])
def test_the_interval_of_a_mean_misses_at_most_once_in_a_hundred_times(epsilon: float, rounds: int) -> None:
    each = chances(epsilon, 400)
    total = each
    for _ in range(rounds - 1):
        total = np.convolve(total, each)
    sums = np.arange(len(total)) - len(total) // 2
    assert float(total[np.abs(sums / rounds) > noise_within(epsilon, rounds)].sum()) <= ERRS


def test_ten_rounds_together_tell_more_than_one() -> None:
    """Ten times the deviation of one, sqrt(2) / epsilon, over sqrt(10)."""
    assert noise_within(0.05, 10) < noise_within(0.05) / 2


@given(st.floats(0.001, 20), st.integers(1, 10))
def test_an_interval_is_finite_and_less_noise_never_widens_it(epsilon: float, rounds: int) -> None:
    width = noise_within(epsilon, rounds)
    assert 0.0 <= width < math.inf
    assert noise_within(2 * epsilon, rounds) <= width


def test_a_round_is_short_where_its_interval_ends_below_nine_tenths() -> None:
    """Of 100 told nine tenths are 90, and at epsilon 1 the interval of 85 ends at 89, that of 86 at 90."""
    assert used_of([85], told=100, epsilon=1.0).is_short
    assert not used_of([86], told=100, epsilon=1.0).is_short


def test_what_one_round_s_noise_hides_several_rounds_show() -> None:
    rounds = [70, 72, 68, 71, 69, 70, 73, 67, 70, 70]
    assert not used_of(rounds[:1], told=100, epsilon=0.2).is_short  # 23 to each side: up to 93
    assert used_of(rounds, told=100, epsilon=0.2).is_short
    assert used_of(rounds, told=100, epsilon=0.2).mean == 70.0


def test_only_the_last_ten_rounds_are_taken_together() -> None:
    used = used_of([1000, *[100] * 10], told=100, epsilon=1.0)
    assert (used.rounds, used.mean) == (10, 100.0)


def test_a_told_number_that_is_noised_itself_is_not_held_against_a_hospital() -> None:
    """At epsilon 1 the told number may be 4 too high: nine tenths of 96 are 86.4."""
    assert used_of([81], told=100, epsilon=1.0, count_epsilon=None).is_short
    assert used_of([82], told=100, epsilon=1.0, count_epsilon=1.0).is_short
    assert not used_of([83], told=100, epsilon=1.0, count_epsilon=1.0).is_short


def test_an_interval_does_not_go_below_nobody() -> None:
    used = used_of([-3], told=100, epsilon=1.0)
    assert (used.patients, used.low, used.high) == (-3, 0.0, 1.0)


def test_receipts_are_charged_for_every_task_that_may_come_and_accounted_for_those_that_came() -> None:
    study = study_with(privacy={"receipt_epsilon": 0.1, "spare_tasks": 1})
    assert figure_events(study) == [PrivacyEvent(mechanism="discrete-laplace", noise_multiplier=10.0, count=5)]
    assert figure_events(study, 2)[0].count == 2
    assert training_events(study, 1.0, 3)[1].count == 3


def test_receipts_are_a_part_of_the_study_s_epsilon() -> None:
    study = study_with(privacy={"receipt_epsilon": 0.25})
    noise, plain = noise_multiplier_of(study), noise_multiplier_of(study_with())
    assert noise is not None
    assert plain is not None
    assert noise > plain
    assert 3.9 < epsilon_of(training_events(study, noise, 4), 1e-4) <= 4.0


def test_a_study_without_them_is_charged_as_before() -> None:
    assert figure_events(study_with()) == []


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"privacy": {"receipt_epsilon": 0.6}}, "Lower it to at most 0.5, or plan fewer rounds."),
        (
            {"privacy": {"receipt_epsilon": 0.5, "count_epsilon": 0.5}, "site_rates": QUALITY},
            "Lower it to at most 0.125, or plan fewer rounds.",
        ),
        ({"privacy": {"receipt_epsilon": 0.1}, "rounds": 3000}, "Leave it out, or plan fewer rounds."),
    ],
    ids=["alone", "beside other figures", "in too many rounds"],
)
def test_receipts_that_leave_training_less_than_half_are_refused(changes: dict[str, Any], remedy: str) -> None:
    with pytest.raises(SpecificationError) as refused:
        study_with(**changes)
    assert [problem for problem in refused.value.problems if problem.startswith("privacy.receipt_epsilon")] != []
    assert refused.value.problems[-1].endswith(remedy)


def test_what_the_rule_offers_is_taken() -> None:
    assert study_with(privacy={"receipt_epsilon": 0.5}).privacy.receipt_epsilon == 0.5
    assert study_with(privacy={"receipt_epsilon": 0.125, "count_epsilon": 0.5}, site_rates=QUALITY) is not None


@pytest.mark.parametrize(
    ("receipt", "problem"),
    [
        (TOLD, None),
        (None, "is missing"),
        (TOLD.model_copy(update={"patients": None}), "is not noised as the study says"),
        (TOLD.model_copy(update={"noise_epsilon": 1.0}), "is not noised as the study says"),
        (TOLD.model_copy(update={"noise_epsilon": None}), "is not noised as the study says"),
        (TOLD.model_copy(update={"told": 99}), "names another number"),
        (TOLD.model_copy(update={"steps": 3}), "names other steps"),
    ],
)
def test_a_receipt_that_does_not_fit_the_study_is_refused(receipt: RoundReceipt | None, problem: str | None) -> None:
    found = receipt_problem(receipt, study_with(privacy={"receipt_epsilon": 0.5}).privacy, 100, 2)
    assert found is None if problem is None else found is not None and found.startswith(problem)


def test_where_no_number_is_asked_for_a_receipt_may_be_missing_and_tells_none() -> None:
    privacy = study_with().privacy
    assert receipt_problem(None, privacy, 100, 2) is None
    without = RoundReceipt(told=100, steps=2, software="1.0.0")
    assert receipt_problem(without, privacy, 100, 2) is None
    assert receipt_problem(TOLD, privacy, 100, 2) is not None
