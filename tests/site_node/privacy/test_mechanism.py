"""The mechanism that the accountant is told of, seen through the trainer: sensitivity, sampling and noise of a step.

Streams are fixed: a test of chance that passes once passes always.
"""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from protocol.study import StudySpec
from site_node.privacy.noise import add_gaussian_noise, grid_step
from site_node.privacy.sampling import draw_patients
from site_node.training.networks import build_network, initial_weights
from site_node.training.patients import draw_batch
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.trainer import train
from tests.site_node.training.examples import make_noise, make_patients, make_study, pixels

LIKELY = 1e-3
ROUNDING = 1e-4
"""Versions are float32: what a step adds is read off them to about this."""


def noised_sum(
    study: StudySpec, patients: PreparedPatients, noise_multiplier: float, task: str = "t"
) -> NDArray[np.float64]:
    """Return the sum of one step, as anybody reads it off the version before and after."""
    before = initial_weights(study)
    after = train(study, before, patients, make_noise(task), noise_multiplier=noise_multiplier, round_number=1)
    scale = study.training.sampling_rate * patients.patients / study.training.learning_rate
    names = [name for name, _ in build_network(study).named_parameters()]
    return np.concatenate([(before[name].astype(np.float64) - after[name]).ravel() for name in names]) * scale


def without_last(patients: PreparedPatients) -> PreparedPatients:
    kept = int(patients.first_image[-2])
    return PreparedPatients(
        patients.images, patients.rows[:kept], patients.targets[:kept], patients.first_image[:-1], patients.labels[:-1]
    )


@settings(max_examples=20, deadline=None)
@given(
    images=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    brightness=st.floats(0, 1e3),
    clip_norm=st.sampled_from([0.1, 1.0, 5.0]),
)
def test_one_patient_with_any_number_of_images_moves_a_step_by_at_most_the_clip_norm(
    images: list[int], brightness: float, clip_norm: float
) -> None:
    study = make_study(sampling_rate=1.0, local_steps=1, images_per_patient=64)
    study = study.model_copy(update={"privacy": study.privacy.model_copy(update={"clip_norm": clip_norm})})
    patients = make_patients(images)
    pixels(patients)[patients.rows[patients.first_image[-2] :]] *= np.float16(brightness)
    moved = noised_sum(study, patients, 1.0) - noised_sum(study, without_last(patients), 1.0)
    assert np.linalg.norm(moved) <= clip_norm + ROUNDING


def test_the_bound_is_reached_so_the_test_above_could_fail() -> None:
    study, patients = make_study(sampling_rate=1.0, local_steps=1, images_per_patient=64), make_patients([1, 2, 9])
    moved = noised_sum(study, patients, 1.0) - noised_sum(study, without_last(patients), 1.0)
    assert np.linalg.norm(moved) == pytest.approx(study.privacy.clip_norm, rel=1e-3)


@pytest.mark.parametrize("noise_multiplier", [0.7, 3.0])
@pytest.mark.parametrize("clip_norm", [0.5, 2.0])
def test_a_step_nobody_is_drawn_for_is_gaussian_noise_of_the_stated_deviation(
    noise_multiplier: float, clip_norm: float
) -> None:
    rate = 1e-9
    study = make_study(sampling_rate=rate, local_steps=1, learning_rate=rate)
    study = study.model_copy(update={"privacy": study.privacy.model_copy(update={"clip_norm": clip_norm})})
    patients = make_patients([1] * 10)
    sums = [noised_sum(study, patients, noise_multiplier, task=str(n)) for n in range(60)]
    values = np.concatenate(sums) / (noise_multiplier * clip_norm)
    assert len(values) > 20_000
    assert stats.kstest(values, "norm").pvalue > LIKELY
    assert stats.pearsonr(sums[0], sums[1]).pvalue > LIKELY  # another step's noise is another


def test_patients_are_drawn_alike_however_many_images_they_have() -> None:
    study = make_study(sampling_rate=0.3, images_per_patient=2)
    patients = make_patients([1, 2, 3, 7, 1, 12, 4, 1])
    owners = np.repeat(np.arange(8), np.diff(patients.first_image))
    pixels(patients)[patients.rows] = owners[:, None, None, None].astype(np.float16)  # an image shows whose it is
    noise, draws = make_noise(), 6000
    drawn, images = np.zeros((draws, 8), bool), np.zeros(8, int)
    for number in range(draws):
        batch = draw_batch(study, patients, noise, torch.device("cpu"))
        shown = batch.images[:, 0, 0, 0].long().numpy()
        drawn[number, shown] = True
        images += np.bincount(shown, minlength=8)
    counts, variance = drawn.sum(0), draws * 0.3 * 0.7
    assert stats.chi2.sf(((counts - draws * 0.3) ** 2 / variance).sum(), 8) > LIKELY
    assert np.array_equal(images, counts * np.minimum(np.diff(patients.first_image), 2))


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.5, 0.9])
def test_every_pair_of_patients_is_drawn_independently(rate: float) -> None:
    patients, steps = 30, 8000
    stream, drawn = make_noise(task=f"rate {rate}").sampling, np.zeros((8000, 30), bool)
    for step in range(steps):
        drawn[step, draw_patients(stream, patients, rate)] = True
    expected = steps * np.array([(1 - rate) ** 2, rate * (1 - rate), rate * (1 - rate), rate**2])
    statistics = []
    for one, other in combinations(range(patients), 2):
        observed = np.bincount(2 * drawn[:, one] + drawn[:, other], minlength=4)
        statistics.append(float(((observed - expected) ** 2 / expected).sum()))
    # A pair's table against the rate itself, not a fitted one: chi-square with 3 degrees of freedom.
    assert max(statistics) < stats.chi2.isf(LIKELY / len(statistics), 3)
    assert np.mean(statistics) == pytest.approx(3.0, abs=0.75)


def test_the_last_draw_does_not_move_the_next_round() -> None:
    # Rounds have streams of their own: drawing more in one shifts nothing in another.
    first, second = make_noise(task="round 1"), make_noise(task="round 2")
    draw_patients(first.sampling, 1000, 0.5)
    untouched = draw_patients(make_noise(task="round 2").sampling, 1000, 0.5)
    assert np.array_equal(draw_patients(second.sampling, 1000, 0.5), untouched)


def test_noise_is_independent_from_value_to_value() -> None:
    noise = add_gaussian_noise(np.zeros(400_000), 1.0, make_noise().gradients)
    for lag in (1, 2, 3, 1 << 10, 1 << 17, noise.size // 2):
        correlation = np.corrcoef(noise[:-lag], noise[lag:])[0, 1]
        assert abs(correlation) < 4.5 / math.sqrt(noise.size - lag), lag


def test_noise_has_the_tails_of_a_gaussian() -> None:
    noise = add_gaussian_noise(np.zeros(3_000_000), 2.0, make_noise().gradients) / 2.0
    for bound in (3.0, 4.0, 4.5):
        expected = noise.size * 2 * stats.norm.sf(bound)
        assert stats.binomtest(int((np.abs(noise) > bound).sum()), noise.size, expected / noise.size).pvalue > LIKELY


def test_the_low_bits_of_a_noised_value_say_nothing_of_the_sum() -> None:
    # Floating-point attacks read them. On the grid, the number of steps below a coarse value is uniform for any sum.
    for total in (0.0, 0.3, 1e-5):
        noised = add_gaussian_noise(np.full(200_000, total), 1.0, make_noise(task=str(total)).gradients)
        steps = np.rint(noised / grid_step(1.0)).astype(np.int64)
        assert stats.chisquare(np.bincount(steps & 255, minlength=256)).pvalue > LIKELY
