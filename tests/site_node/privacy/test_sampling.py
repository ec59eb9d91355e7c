import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from site_node.privacy.sampling import draw_images, draw_patients
from tests.site_node.training.examples import make_noise

PATIENTS, STEPS, RATE = 40, 20_000, 0.15
LIKELY = 1e-3


@pytest.fixture(scope="module")
def draws() -> np.ndarray:
    stream = make_noise().sampling
    drawn = np.zeros((STEPS, PATIENTS), bool)
    for step in range(STEPS):
        drawn[step, draw_patients(stream, PATIENTS, RATE)] = True
    return drawn


def test_each_patient_is_drawn_with_the_rate(draws: np.ndarray) -> None:
    counts = draws.sum(0)
    chi = ((counts - STEPS * RATE) ** 2).sum() / (STEPS * RATE * (1 - RATE))
    assert stats.chi2.sf(chi, PATIENTS) > LIKELY


def test_patients_are_drawn_independently_of_each_other(draws: np.ndarray) -> None:
    sizes = np.bincount(draws.sum(1), minlength=PATIENTS + 1)
    expected = stats.binom.pmf(np.arange(PATIENTS + 1), PATIENTS, RATE) * STEPS
    usual = expected > 10
    observed = np.append(sizes[usual], sizes[~usual].sum())
    assert stats.chisquare(observed, np.append(expected[usual], expected[~usual].sum())).pvalue > LIKELY
    correlations = np.corrcoef(draws.T)[np.triu_indices(PATIENTS, 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(STEPS)


def test_a_patient_is_drawn_independently_of_the_step_before(draws: np.ndarray) -> None:
    both = (draws[1:] & draws[:-1]).sum()
    trials = (STEPS - 1) * PATIENTS
    assert stats.binomtest(int(both), trials, RATE**2).pvalue > LIKELY


def test_everybody_is_drawn_at_rate_one() -> None:
    assert draw_patients(make_noise().sampling, 5, 1.0).tolist() == [0, 1, 2, 3, 4]


def test_nobody_may_be_drawn() -> None:
    assert draw_patients(make_noise().sampling, 3, 1e-9).size == 0


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1])
def test_a_rate_that_is_no_probability_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="sampling rate"):
        draw_patients(make_noise().sampling, 3, rate)


@given(images=st.integers(1, 30), at_most=st.integers(1, 30))
def test_of_a_patient_at_most_so_many_images_are_drawn_none_twice(images: int, at_most: int) -> None:
    drawn = draw_images(make_noise().images, images, at_most).tolist()
    assert len(set(drawn)) == len(drawn) == min(images, at_most)
    assert set(drawn) <= set(range(images))


def test_every_image_of_a_patient_is_drawn_as_often() -> None:
    stream = make_noise().images
    counts = np.bincount(np.concatenate([draw_images(stream, 6, 2) for _ in range(6000)]), minlength=6)
    assert stats.chisquare(counts).pvalue > LIKELY
