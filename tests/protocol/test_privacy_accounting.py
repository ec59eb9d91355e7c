import math

import pytest
from dp_accounting.pld.privacy_loss_distribution import from_discrete_laplace_mechanism
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import AccountingError
from protocol.privacy_accounting import (
    PrivacyEvent,
    calibrate_noise,
    epsilon_of,
    histogram_event,
    noise_multiplier_of,
    training_event,
)
from protocol.study import parse_study


def gaussian(noise: float, count: int = 1, rate: float = 1.0) -> PrivacyEvent:
    return PrivacyEvent(mechanism="poisson-gaussian", sampling_rate=rate, noise_multiplier=noise, count=count)


def exact_gaussian_delta(epsilon: float, sigma: float) -> float:
    """Balle and Wang 2018, Theorem 8, for sensitivity 1."""

    def phi(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    return phi(1 / (2 * sigma) - epsilon * sigma) - math.exp(epsilon) * phi(-1 / (2 * sigma) - epsilon * sigma)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 3.0])
def test_one_gaussian_release_has_the_analytic_epsilon(sigma: float) -> None:
    epsilon = epsilon_of([gaussian(sigma)], 1e-5)
    assert exact_gaussian_delta(epsilon, sigma) == pytest.approx(1e-5, rel=0.02)
    assert exact_gaussian_delta(epsilon, sigma) <= 1e-5


def test_sixteen_releases_at_four_times_the_noise_are_one_release() -> None:
    assert epsilon_of([gaussian(4.0, 16)], 1e-5) == pytest.approx(epsilon_of([gaussian(1.0)], 1e-5), rel=0.005)


def test_a_noised_histogram_has_its_own_epsilon() -> None:
    assert epsilon_of([histogram_event(0.5, 1)], 1e-9) == pytest.approx(0.5, abs=0.002)


@pytest.mark.parametrize(("epsilon", "releases"), [(1.0, 20), (0.5, 10), (2.0, 3)])
def test_noised_histograms_never_cost_less_than_two_sided_geometric_noise_does(epsilon: float, releases: int) -> None:
    exact = from_discrete_laplace_mechanism(epsilon, sensitivity=1).self_compose(releases).get_epsilon_for_delta(1e-4)
    charged = epsilon_of([histogram_event(epsilon, releases)], 1e-4)
    assert exact - 0.01 <= charged <= releases * epsilon


def test_the_published_value_of_dp_sgd_on_mnist_is_not_exceeded() -> None:
    # Abadi et al. 2016, section 5.2: q=0.01, sigma=4, 10,000 steps: epsilon 1.26 at delta 1e-5 (moments accountant).
    assert epsilon_of([gaussian(4.0, 10_000, 0.01)], 1e-5) == pytest.approx(1.0, abs=0.26)


def test_nothing_released_costs_nothing() -> None:
    assert epsilon_of([], 1e-5) == 0.0


def test_events_in_pieces_cost_what_they_cost_together() -> None:
    assert epsilon_of([gaussian(2.0, 3), gaussian(2.0, 4)], 1e-5) == epsilon_of([gaussian(2.0, 7)], 1e-5)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([0.05, 0.3, 1.0]), st.sampled_from([1, 50, 300]), st.sampled_from([0.5, 3.0, 8.0]))
def test_calibrated_noise_keeps_the_target_and_wastes_little(rate: float, steps: int, epsilon: float) -> None:
    noise = calibrate_noise(rate, steps, epsilon, 1e-5)
    assert 0.97 * epsilon <= epsilon_of([gaussian(noise, steps, rate)], 1e-5) <= epsilon


def test_a_target_out_of_reach_is_refused_with_the_remedy() -> None:
    with pytest.raises(AccountingError, match="Raise epsilon"):
        calibrate_noise(1.0, 100_000_000, 0.001, 1e-9)


def test_a_studys_noise_is_for_the_most_tasks_it_may_give() -> None:
    study = {
        "name": "s",
        "label": {"classes": ["a", "b"]},
        "network": {"name": "n"},
        "rounds": 5,
        "participants": {"training_patients": 100},
        "privacy": {"epsilon": 4.0, "delta": 1e-4, "spare_tasks": 5},
    }
    spec = parse_study(study)
    noise = noise_multiplier_of(spec)
    assert noise is not None
    assert epsilon_of([training_event(spec, noise, 10)], 1e-4) == pytest.approx(4.0, rel=0.02)
    assert epsilon_of([training_event(spec, noise, 5)], 1e-4) < 3.5


@given(
    rate=st.sampled_from([0.05, 0.3, 1.0]),
    steps=st.integers(1, 200),
    epsilon=st.floats(0.2, 12.0, allow_subnormal=False),
)
@settings(max_examples=10)
def test_less_noise_than_the_calibrated_would_break_the_promise(rate: float, steps: int, epsilon: float) -> None:
    noise = calibrate_noise(rate, steps, epsilon, 1e-5)
    assert epsilon_of([gaussian(noise, steps, rate)], 1e-5) <= epsilon
    assert epsilon_of([gaussian(noise * (1 - 2e-3), steps, rate)], 1e-5) > epsilon
