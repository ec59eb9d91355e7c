import math

import numpy as np
import pytest
from scipy.special import ive
from scipy.stats import chisquare, kstest, norm

from protocol.skellam import LEAST_VARIANCE
from site_node.privacy.noise import SecureStream
from site_node.privacy.skellam import log_probability_ratio, skellam_noise


def stream(name: bytes = b"s") -> SecureStream:
    return SecureStream(name * 32)


@pytest.mark.parametrize("variance", [LEAST_VARIANCE, 1e5, 3e6])
def test_probabilities_are_those_of_the_bessel_function(variance: float) -> None:
    values = np.array([0.0, 1.0, 7.0, *(np.arange(1, 7) * math.floor(math.sqrt(variance)))])
    expected = np.log(ive(values, variance) / ive(0, variance))
    assert log_probability_ratio(values, variance) == pytest.approx(expected, abs=1e-11)  # SciPy's own error


def test_at_the_least_variance_the_numbers_fall_into_the_bins_as_they_should() -> None:
    drawn = skellam_noise(stream(), 400_000, LEAST_VARIANCE)
    numbers = np.arange(-2000, 2001)
    expected = ive(np.abs(numbers), LEAST_VARIANCE)
    edges = np.linspace(-700, 700, 41)
    counts = np.histogram(drawn, [-2000.5, *(edges + 0.5), 2000.5])[0]
    wanted = np.histogram(numbers, [-2000.5, *(edges + 0.5), 2000.5], weights=expected)[0]
    assert chisquare(counts, wanted / wanted.sum() * counts.sum()).pvalue > 1e-4


@pytest.mark.parametrize("variance", [4e9, 1e14])
def test_large_variances_look_gaussian_on_every_scale(variance: float) -> None:
    drawn = skellam_noise(stream(b"l"), 200_000, variance)
    assert kstest(drawn / math.sqrt(variance), norm.cdf).pvalue > 1e-4
    assert chisquare(np.bincount(drawn % 16, minlength=16)).pvalue > 1e-4  # the lowest bits are uniform


def test_the_shares_of_several_sites_sum_to_one_noise() -> None:
    shares = [skellam_noise(stream(name), 100_000, 1e6 / 4) for name in (b"a", b"b", b"c", b"d")]
    assert kstest(np.sum(shares, axis=0) / 1e3, norm.cdf).pvalue > 1e-4


def test_equal_streams_give_equal_numbers_and_a_stream_goes_on() -> None:
    once, again = stream(), stream()
    assert np.array_equal(skellam_noise(once, 1000, 1e6), skellam_noise(again, 1000, 1e6))
    assert not np.array_equal(skellam_noise(once, 1000, 1e6), skellam_noise(stream(), 1000, 1e6))


def test_any_number_of_values_can_be_drawn() -> None:
    for count in (0, 1, 2, 300_000):
        drawn = skellam_noise(stream(), count, 1e8)
        assert drawn.shape == (count,)
        assert drawn.dtype == np.int64


@pytest.mark.parametrize("variance", [0.0, -1.0, 100.0, math.inf, math.nan])
def test_a_variance_for_which_the_sampler_is_not_exact_is_refused(variance: float) -> None:
    with pytest.raises(ValueError, match="variance"):
        skellam_noise(stream(), 10, variance)
