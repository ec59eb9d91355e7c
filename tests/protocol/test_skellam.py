import math

import numpy as np
import pytest
from scipy.special import ive

from protocol.privacy_accounting import PrivacyEvent, calibrate_noise, epsilon_of, histogram_event
from protocol.privacy_filter import renyi_divergence
from protocol.skellam import LEAST_CLIP_STEPS, divergences_at, skellam_rdp, step_divergences


def probabilities(variance: float, reach: int) -> np.ndarray:
    """The Skellam distribution from -reach to reach: exp(-m) I_k(m)."""
    return np.asarray(ive(np.abs(np.arange(-reach, reach + 1)), variance))


def log_moment(numerator: np.ndarray, denominator: np.ndarray, order: float) -> float:
    logs = order * np.log(numerator) + (1 - order) * np.log(denominator)
    return float(logs.max() + np.log(np.sum(np.exp(logs - logs.max()))))


@pytest.mark.parametrize("variance", [2.0, 10.0, 100.0, 1000.0])
def test_the_distribution_that_is_accounted_has_the_variance_that_is_stated(variance: float) -> None:
    reach = int(20 * math.sqrt(variance) + 40)
    found = float(np.sum(probabilities(variance, reach) * np.arange(-reach, reach + 1) ** 2))
    assert found == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("variance", [10.0, 100.0, 1000.0])
@pytest.mark.parametrize("shift", [1, 3, 10])
@pytest.mark.parametrize("order", [2, 3, 8])
def test_the_exact_divergence_in_one_value_is_below_the_bound_and_near_it(
    variance: float, shift: int, order: int
) -> None:
    reach = int(8 * math.sqrt(variance) + order * shift + 40)
    noise = probabilities(variance, reach)
    exact = log_moment(noise[:-shift], noise[shift:], order) / (order - 1)
    bound = skellam_rdp(order, shift, shift, variance)
    assert exact <= bound
    if variance == 1000.0:
        assert exact >= 0.97 * bound


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("order", [2, 5, 16])
def test_sampling_amplifies_as_the_exact_divergences_of_both_directions_say(rate: float, order: int) -> None:
    variance, shift = 1e4, 100  # a noise multiplier of 1 on a coarse grid
    noise = probabilities(variance, 3000)
    absent, present = noise[shift:], noise[:-shift]
    mixed = (1 - rate) * absent + rate * present
    forward = log_moment(mixed, absent, order) / (order - 1)
    backward = log_moment(absent, mixed, order) / (order - 1)
    bound = step_divergences(rate, 1.0)[order - 2]  # on the finest grid that is used; the coarse one is a little above
    assert backward <= forward <= 1.01 * bound
    assert forward >= 0.9 * bound


def test_on_a_fine_grid_the_divergences_are_the_sampled_gaussian_s() -> None:
    for rate, noise in [(0.01, 0.8), (0.1, 1.0), (0.3, 4.0), (1.0, 2.0)]:
        gaussian = PrivacyEvent(mechanism="poisson-gaussian", sampling_rate=rate, noise_multiplier=noise, count=1)
        skellam = gaussian.model_copy(update={"mechanism": "poisson-skellam"})
        for order in (2, 3, 8, 32):
            expected = renyi_divergence([gaussian], order)
            assert expected <= renyi_divergence([skellam], order) <= expected * (1 + 1e-3) + 1e-12


def test_a_finer_grid_never_costs_more() -> None:
    for order in (2, 8, 64):
        costs = [
            skellam_rdp(order, steps, steps**2, (0.5 * steps) ** 2)
            for steps in (LEAST_CLIP_STEPS, 2 * LEAST_CLIP_STEPS, 1 << 20)
        ]
        assert costs == sorted(costs, reverse=True)


def test_divergences_between_whole_orders_lie_on_the_chord_and_grow() -> None:
    given = step_divergences(0.1, 1.0)
    at = divergences_at([1.5, 2, 2.5, 3, 600], given)
    assert at[0] == at[1] == given[0]
    assert at[2] == pytest.approx((given[0] + 2 * given[1]) / 2 / 1.5)
    assert at[3] == pytest.approx(given[1])
    assert math.isinf(at[4])


@pytest.mark.parametrize("epsilon", [0.5, 3.0, 8.0])
def test_calibrated_skellam_noise_spends_its_target_and_hardly_more_noise_than_a_gaussian(epsilon: float) -> None:
    noise = calibrate_noise(0.1, 100, epsilon, 1e-5, "skellam")
    event = PrivacyEvent(mechanism="poisson-skellam", sampling_rate=0.1, noise_multiplier=noise, count=100)
    assert 0.99 * epsilon <= epsilon_of([event], 1e-5) <= epsilon
    gaussian = calibrate_noise(0.1, 100, epsilon, 1e-5)
    assert gaussian <= noise <= 1.12 * gaussian  # what Renyi accounting loses against loss distributions


def test_skellam_and_other_events_compose() -> None:
    skellam = PrivacyEvent(mechanism="poisson-skellam", sampling_rate=0.1, noise_multiplier=1.0, count=50)
    gaussian = PrivacyEvent(mechanism="poisson-gaussian", sampling_rate=0.1, noise_multiplier=1.0, count=50)
    twice = skellam.model_copy(update={"count": 100})
    alone, together = epsilon_of([skellam], 1e-5), epsilon_of([skellam, gaussian], 1e-5)
    assert alone < together == pytest.approx(epsilon_of([twice], 1e-5), rel=1e-3)
    with_histograms = epsilon_of([skellam, histogram_event(0.5, 2)], 1e-5)
    assert with_histograms == pytest.approx(alone + 1.0)
