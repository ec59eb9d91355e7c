"""What an update weighs when each site's noise is known."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hub.aggregation.choosing import strategy_of
from hub.aggregation.joining import Mean
from hub.aggregation.strategy import RoundFacts
from hub.aggregation.weighted_mean import weighted_mean
from hub.aggregation.weighting import InverseNoise, between_sites_variance, noise_variance
from protocol.study import StudySpec, parse_study
from tests.hub.aggregation.shelf import Shelf
from tests.hub.conftest import specification

FACTS = RoundFacts(number=1, trainers=3, noise_multiplier=2.0)


def study_of(**training: Any) -> StudySpec:
    terms = {"local_steps": 3, "sampling_rate": 0.1, "learning_rate": 0.5, **training}
    privacy = {"epsilon": 8.0, "delta": 1e-4, "clip_norm": 4.0}
    return parse_study(
        specification(
            strategy={"weighting": "noise"}, training=terms, privacy=privacy, participants={"training_patients": 100}
        )
    )


def weights_of(shelf: Shelf, rows: Any, patients: list[float], facts: RoundFacts = FACTS) -> list[float]:
    gathered = shelf.round(shelf.updates(rows, patients), facts)
    return list(InverseNoise(study_of()).weights_of(gathered))


def test_the_noise_of_an_update_by_hand() -> None:
    # 100 patients at 0.1: 10 drawn. A step's noise: 0.5 x 2 x 4 / 10 = 0.4; three steps: 3 x 0.16.
    assert noise_variance(study_of(), 2.0, 100, 1) == pytest.approx(0.48)
    assert noise_variance(study_of(), 2.0, 50, 1) == pytest.approx(4 * 0.48)


def test_momentum_carries_the_noise_of_early_steps_further() -> None:
    # gains 1, 1.5, 1.75 of the last, the second and the first step
    expected = 0.16 * (1 + 1.5**2 + 1.75**2)
    assert noise_variance(study_of(momentum=0.5), 2.0, 100, 1) == pytest.approx(expected)


def test_the_noise_follows_the_round_s_learning_rate() -> None:
    study = study_of(schedule="cosine")
    first, second = (noise_variance(study, 2.0, 100, number) for number in (1, 2))
    assert second == pytest.approx(first * 0.25)  # two rounds: the second has half of the rate


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_simulated_descent_has_the_noise_that_is_computed(momentum: float) -> None:
    study, generator = study_of(momentum=momentum), np.random.default_rng(2)
    place, speed = np.zeros(200_000), np.zeros(200_000)
    for _ in range(3):  # torch.optim.SGD: v = mu v + g, w = w - eta v
        speed = momentum * speed + generator.normal(0, 2.0 * 4.0 / 10, place.shape)
        place = place - 0.5 * speed
    assert float(place.var()) == pytest.approx(noise_variance(study, 2.0, 100, 1), rel=0.02)


def test_the_sites_variance_by_hand() -> None:
    # w = 1, 0.5: sum 1.5, squares 1.25; (3 - 1) / (1.5 - 1.25/1.5)
    assert between_sites_variance(3.0, [1.0, 2.0]) == pytest.approx(2 / (1.5 - 1.25 / 1.5))
    assert between_sites_variance(0.5, [1.0, 2.0]) == 0.0
    assert between_sites_variance(7.0, [1.0]) == 0.0


def test_where_noise_rules_weights_go_with_the_square_of_the_patients(shelf: Shelf) -> None:
    generator = np.random.default_rng(7)
    patients = [20.0, 40.0, 80.0]
    noise = [generator.normal(0, math.sqrt(noise_variance(study_of(), 2.0, n, 1)), 4000) for n in patients]
    weights = weights_of(shelf, np.array(noise, np.float32), patients)
    np.testing.assert_allclose(np.array(weights) / weights[0], [1, 4, 16], rtol=0.25)


def test_where_sites_differ_in_earnest_they_count_alike(shelf: Shelf) -> None:
    rows = 1e4 * np.random.default_rng(8).normal(0, 1, (3, 4000)).astype(np.float32)
    np.testing.assert_allclose(weights_of(shelf, rows, [20.0, 40.0, 80.0]), [1 / 3] * 3, rtol=1e-3)


def test_identical_updates_leave_no_difference_between_sites(shelf: Shelf) -> None:
    weights = weights_of(shelf, np.ones((3, 10), np.float32), [20.0, 40.0, 80.0])
    np.testing.assert_allclose(weights, np.array([1, 4, 16]) / 21)


def test_the_estimate_finds_the_sites_variance(shelf: Shelf) -> None:
    generator, patients = np.random.default_rng(9), [30.0, 60.0, 90.0, 120.0, 200.0]
    rows = [generator.normal(0, math.sqrt(0.7 + noise_variance(study_of(), 2.0, n, 1)), 20_000) for n in patients]
    weights = weights_of(shelf, np.array(rows, np.float32), patients)
    exact = np.array([1 / (0.7 + noise_variance(study_of(), 2.0, n, 1)) for n in patients])
    np.testing.assert_allclose(weights, exact / exact.sum(), rtol=0.03)


def test_the_mean_under_these_weights_varies_less(shelf: Shelf) -> None:
    generator, patients = np.random.default_rng(10), [20.0, 30.0, 400.0]
    rows = np.array(
        [generator.normal(1.0, math.sqrt(noise_variance(study_of(), 2.0, n, 1)), 4000) for n in patients], np.float32
    )
    found = shelf.joined(Mean(InverseNoise(study_of())), shelf.updates(rows, patients), FACTS)
    by_patients = weighted_mean(rows, patients)
    equal = weighted_mean(rows, [1, 1, 1])
    errors = [float(np.square(np.asarray(mean) - 1).mean()) for mean in (found, by_patients, equal)]
    assert errors == sorted(errors)
    assert errors[0] < 0.95 * errors[1] < 0.5 * errors[2]


def test_a_late_update_has_the_noise_of_the_round_it_was_trained_in(shelf: Shelf) -> None:
    study = parse_study(
        specification(
            rounds=2,
            strategy={"weighting": "noise"},
            training={"local_steps": 3, "sampling_rate": 0.1, "learning_rate": 0.5, "schedule": "cosine"},
            privacy={"epsilon": 8.0, "delta": 1e-4, "clip_norm": 4.0},
            participants={"training_patients": 100},
        )
    )
    # Round 2 has half of round 1's rate, so a quarter of its noise. Equal updates of equal hospitals: t^2 is 0 and the
    # weights go with 1 / v, so the update of round 1 counts 1 where that of round 2 counts 4.
    on_time, late = shelf.updates(np.ones((2, 10), np.float32), [50.0, 50.0])
    updates = [replace(on_time, round=2), replace(late, round=1)]
    gathered = shelf.round(updates, RoundFacts(number=2, trainers=2, noise_multiplier=2.0))
    np.testing.assert_allclose(InverseNoise(study).weights_of(gathered), [0.8, 0.2])


def test_without_noise_the_patients_count(shelf: Shelf) -> None:
    facts = replace(FACTS, noise_multiplier=None)
    assert weights_of(shelf, np.ones((2, 3), np.float32), [20.0, 60.0], facts) == [20.0, 60.0]
    study = parse_study(specification(strategy={"weighting": "noise"}))
    plain = strategy_of(parse_study(specification()))
    updates = shelf.updates([[1.0], [4.0]], [2.0, 1.0])
    state = plain.init(shelf.put([0.0]))
    assert strategy_of(study).apply(state, updates, shelf.blobs) == plain.apply(state, updates, shelf.blobs)


def test_a_factor_moves_the_model_less_and_the_others_no_more(shelf: Shelf) -> None:
    one, late = shelf.updates([[2.0], [4.0]])
    strategy = strategy_of(parse_study(specification()))
    state = strategy.init(shelf.put([0.0]))
    after = strategy.apply(state, [one, replace(late, factor=0.5)], shelf.blobs)
    assert shelf.values(after.weights) == [(2.0 + 0.5 * 4.0) / 2]
