import math
from typing import Any

import numpy as np
import pytest

from protocol.shared_noise import shared_noise_of
from protocol.study import StudySpec, parse_study
from site_node.errors import OrderError, TooFewPatientsError
from site_node.training.networks import initial_weights
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.shared_noise import Whole, noised_step
from site_node.training.trainer import train
from tests.protocol.test_shared_noise import specification
from tests.site_node.training.examples import SMALLEST, make_noise, make_patients, make_study

PATIENTS = make_patients([1, 2, 3, 1] * 8)
TINY = 2e-3
"""A noise multiplier so small that the noise is far below a gradient, and the sampler still exact."""


def shared_study(name: str = "convnet", **training: Any) -> StudySpec:
    changes: dict[str, dict[str, Any]] = {
        "network": {"name": name, "arguments": SMALLEST[name]},
        "training": {"sampling_rate": 1.0, **training},
        "participants": {"minimum_sites": 4, "training_patients": 200},
        "secure_aggregation": {"maximum_sites": 4, "maximum_weight": 100},
        "privacy": {"delta": 1e-4},
    }
    document = specification(**changes)
    document["preprocessing"] = {"size": [16, 16], "augmentation": "none"}
    return parse_study(document)


def step(
    study: StudySpec, noise_multiplier: float | None = TINY, task: str = "t", patients: PreparedPatients = PATIENTS
) -> Whole:
    base = initial_weights(study)
    return noised_step(study, base, patients, make_noise(task), noise_multiplier=noise_multiplier)


@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_a_step_summed_over_sites_is_the_step_that_one_site_would_take_alone(name: str) -> None:
    # Everybody is drawn and there is hardly any noise: what the hub applies to the sum of two sites' integers is
    # DP-SGD's own step over the patients of both, up to the grid.
    study = shared_study(name, learning_rate=0.5)
    others = make_patients([2, 1] * 10, seed=1)
    terms = shared_noise_of(study)
    total = step(study) + step(study, task="u", patients=others)
    moved = -0.5 * total * terms.grid / (PATIENTS.patients + others.patients)
    alone = parse_study(
        study.model_dump(mode="json", by_alias=True)
        | {"privacy": {"epsilon": 3.0, "delta": 1e-4}, "secure_aggregation": {}}
    )
    base = initial_weights(alone)
    pooled = sum(
        here.patients
        * np.concatenate(
            [
                (array - base[key]).ravel()
                for key, array in train(alone, base, here, make_noise(), noise_multiplier=1e-7, round_number=1).items()
            ]
        )
        for here in (PATIENTS, others)
    ) / (PATIENTS.patients + others.patients)
    assert np.linalg.norm(pooled) > 1e-3
    noise_and_grid = 0.5 * (2 * TINY + math.sqrt(len(moved)) / terms.clip_steps) * math.sqrt(len(moved)) / 52
    assert np.linalg.norm(moved - pooled) <= noise_and_grid


def test_the_noise_of_a_share_has_the_variance_of_the_terms() -> None:
    study = shared_study(sampling_rate=1e-9)  # nobody is drawn: noise alone
    drawn = step(study, 2.0)
    expected = math.sqrt(shared_noise_of(study).share_variance(2.0))
    assert np.std(drawn) == pytest.approx(expected, rel=5 / math.sqrt(len(drawn)))
    assert abs(np.mean(drawn)) < 5 * expected / math.sqrt(len(drawn))


def test_a_patient_moves_the_integers_by_at_most_the_clip_steps() -> None:
    study = shared_study()
    all_but_one = PreparedPatients(
        PATIENTS.images,
        PATIENTS.rows[:-1],
        PATIENTS.targets[:-1],
        PATIENTS.first_image[:-1],
        PATIENTS.labels[:-1],
    )
    # Equal streams: the noise is the same, and the draws too, because everybody is drawn.
    shift = step(study) - step(study, patients=all_but_one)
    assert 0 < np.linalg.norm(shift) <= shared_noise_of(study).clip_steps


def test_a_step_repeats_to_the_bit_for_the_same_task_and_is_fresh_for_another() -> None:
    study = shared_study(sampling_rate=0.5)
    assert np.array_equal(step(study, 1.0), step(study, 1.0))
    assert not np.array_equal(step(study, 1.0), step(study, 1.0, task="other"))


def test_values_keep_to_the_bound_where_patients_and_noise_are_many() -> None:
    study = shared_study()
    terms = shared_noise_of(study)
    largest = 0.9 * (terms.value_bound - terms.sum_bound) / math.sqrt(terms.share_variance(1.0))
    drawn = step(study, largest)  # a deviation of nearly the noise's half: a third of the values would leave the bound
    assert np.abs(drawn).max() == terms.value_bound


@pytest.mark.parametrize("noise_multiplier", [None, 0.0, -1.0])
def test_an_order_without_noise_is_refused(noise_multiplier: float | None) -> None:
    with pytest.raises(OrderError, match="noise"):
        step(shared_study(), noise_multiplier)


def test_a_study_of_another_mechanism_takes_no_shared_step() -> None:
    with pytest.raises(OrderError, match="noise"):
        step(make_study(), 1.0)


def test_the_local_trainer_refuses_a_study_with_shared_noise() -> None:
    study = shared_study()
    with pytest.raises(OrderError, match="noise"):
        train(study, initial_weights(study), PATIENTS, make_noise(), noise_multiplier=1.0, round_number=1)


def test_a_site_without_patients_says_so() -> None:
    with pytest.raises(TooFewPatientsError):
        step(shared_study(), patients=make_patients([]))
