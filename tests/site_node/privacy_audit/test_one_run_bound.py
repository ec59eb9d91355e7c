import math

import numpy as np
import pytest
from scipy import stats

from site_node.privacy_audit.one_run_bound import Guesses, epsilon_lower_bound, guess, p_value


@pytest.mark.parametrize("made", [10, 60, 100, 120])
def test_all_guesses_right_give_the_closed_form_at_delta_zero(made: int) -> None:
    # (e^eps / (e^eps + 1))^made = 0.05, so eps = -log(0.05^(-1/made) - 1).
    bound = epsilon_lower_bound(Guesses(canaries=made, made=made, right=made), delta=0.0)
    assert bound == pytest.approx(-math.log(0.05 ** (-1 / made) - 1), abs=1e-5)


def test_one_wrong_guess_solves_its_equation() -> None:
    bound = epsilon_lower_bound(Guesses(canaries=50, made=50, right=49), delta=0.0)
    q = 1 / (1 + math.exp(-bound))
    assert q**50 + 50 * q**49 * (1 - q) == pytest.approx(0.05, abs=1e-5)


def test_two_guesses_at_epsilon_zero_are_counted_by_hand() -> None:
    # Two coins: 1/4 both right; P[2 > B >= 1] / 1 = 1/2 is steeper than P[2 > B >= 0] / 2 = 3/8.
    guesses = Guesses(canaries=10, made=2, right=2)
    assert p_value(guesses, 0.0, 0.0) == pytest.approx(0.25)
    assert p_value(guesses, 0.0, 0.01) == pytest.approx(0.25 + 2 * 10 * 0.01 * 0.5)


@pytest.mark.parametrize(("made", "right", "epsilon"), [(100, 86, 1.3), (200, 200, 4.0), (40, 21, 0.0), (7, 0, 2.0)])
def test_without_delta_the_p_value_is_the_binomial_tail(made: int, right: int, epsilon: float) -> None:
    expected = stats.binom.sf(right - 1, made, 1 / (1 + math.exp(-epsilon)))
    assert p_value(Guesses(made, made, right), epsilon, 0.0) == pytest.approx(expected, rel=1e-9)


def test_delta_costs_and_is_never_free() -> None:
    guesses = Guesses(canaries=1000, made=100, right=95)
    bounds = [epsilon_lower_bound(guesses, delta) for delta in (0.0, 1e-5, 1e-4, 1e-3)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[-1]


@pytest.mark.parametrize(("made", "right"), [(100, 50), (100, 30), (0, 0), (4, 4)])
def test_guesses_no_better_than_coins_refute_nothing(made: int, right: int) -> None:
    assert epsilon_lower_bound(Guesses(canaries=200, made=made, right=right), 1e-5) == 0.0


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomised_response_is_refuted_in_at_most_one_audit_of_twenty(epsilon: float) -> None:
    # The mechanism that the theorem is tight for: each answer is right with e^eps / (e^eps + 1).
    made, audits = 80, 2000
    right = np.random.default_rng(7).binomial(made, 1 / (1 + math.exp(-epsilon)), audits)
    bounds = {int(r): epsilon_lower_bound(Guesses(made, made, int(r)), 0.0) for r in set(right.tolist())}
    wrong = sum(bounds[int(r)] > epsilon for r in right)
    assert wrong <= stats.binom.ppf(0.999, audits, 0.05)
    assert max(bounds.values()) > epsilon  # or the test could not fail


def test_the_highest_are_called_in_and_the_lowest_out() -> None:
    included = np.array([True, True, False, False, True, False])
    scores = np.array([9.0, 8.0, 7.0, 1.0, 2.0, 3.0])
    assert guess(scores, included, high=2, low=1) == Guesses(canaries=6, made=3, right=3)
    assert guess(scores, included, high=3, low=3) == Guesses(canaries=6, made=6, right=4)
    assert guess(-scores, included, high=2, low=2).right == 1


def test_who_is_abstained_on_changes_nothing() -> None:
    included, scores = np.arange(10) % 2 == 0, np.arange(10.0)
    changed = included.copy()
    changed[3:7] = ~changed[3:7]
    assert guess(scores, included, 3, 3) == guess(scores, changed, 3, 3)


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="canaries"):
        Guesses(canaries=3, made=4, right=1)
    with pytest.raises(ValueError, match="finite"):
        guess(np.array([np.nan, 1.0]), np.array([True, False]), 1, 1)
    with pytest.raises(ValueError, match="at most"):
        guess(np.array([0.0, 1.0]), np.array([True, False]), 2, 1)
