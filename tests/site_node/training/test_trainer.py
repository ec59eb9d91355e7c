from collections.abc import Sequence

import numpy as np
import pytest

from protocol.messages import Reason
from protocol.study import StudySpec
from protocol.tensors import Weights
from site_node.errors import NotFiniteError, OrderError, SiteError, TooFewPatientsError
from site_node.training.networks import initial_weights
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.trainer import train
from tests.site_node.training.examples import SMALLEST, make_noise, make_patients, make_study, pixels

PATIENTS = make_patients([1, 2, 3, 1] * 8)


def trained(
    study: StudySpec,
    noise_multiplier: float | None = 1.0,
    round_number: int = 1,
    task: str = "t",
    patients: PreparedPatients = PATIENTS,
) -> Weights:
    return train(
        study,
        initial_weights(study),
        patients,
        make_noise(task),
        noise_multiplier=noise_multiplier,
        round_number=round_number,
    )


def distance(one: Weights, other: Weights) -> float:
    return float(np.sqrt(sum(((one[name] - other[name]) ** 2).sum() for name in one)))


@pytest.mark.parametrize("size", [(16, 16), (16, 16, 16)], ids=["2D", "3D"])
@pytest.mark.parametrize("name", sorted(SMALLEST))
@pytest.mark.parametrize("noise_multiplier", [None, 1.0], ids=["plain", "private"])
def test_every_network_trains(name: str, size: Sequence[int], noise_multiplier: float | None) -> None:
    study = make_study(name, size, None if noise_multiplier is None else 8.0)
    patients = make_patients([1, 2] * 4, size)
    weights = trained(study, noise_multiplier, patients=patients)
    assert distance(weights, initial_weights(study)) > 0


def test_training_repeats_to_the_bit_for_the_same_noise() -> None:
    study = make_study(augmentation="light")
    assert distance(trained(study), trained(study)) == 0
    assert distance(trained(study), trained(study, task="other")) > 0


def test_an_empty_draw_takes_a_step_of_noise_alone() -> None:
    study = make_study(sampling_rate=1e-9, local_steps=1, learning_rate=1e-9)
    moved = distance(trained(study, 2.0), initial_weights(study))
    parameters = sum(array.size for array in initial_weights(study).values())
    expected = 2.0 * np.sqrt(parameters) / (1e-9 * PATIENTS.patients) * 1e-9
    assert moved == pytest.approx(expected, rel=0.15)


def test_the_expected_number_of_patients_divides_never_the_drawn_one() -> None:
    # With rate 1 and hardly any noise the step is the sum of clipped gradients over all patients, divided by N.
    study = make_study(sampling_rate=1.0, local_steps=1, learning_rate=1.0)
    assert distance(trained(study, 1e-6), initial_weights(study)) <= 1.0 + 1e-3
    rarely = make_study(sampling_rate=1e-3, local_steps=1, learning_rate=1.0)
    nobody = make_patients([1])
    assert distance(trained(rarely, 1e-3, patients=nobody), initial_weights(rarely)) > 10


def test_a_round_may_move_weights_no_further_than_steps_times_norm_without_noise() -> None:
    study = make_study(epsilon=None, local_steps=5, learning_rate=0.1)
    assert distance(trained(study, None), initial_weights(study)) <= 5 * 0.1 * 1.0 + 1e-5


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_learning_rate_falls_over_the_rounds(optimizer: str) -> None:
    study = make_study(epsilon=None, schedule="cosine", optimizer=optimizer, learning_rate=0.01)
    first, second = (distance(trained(study, None, number), initial_weights(study)) for number in (1, 2))
    assert second == pytest.approx(first / 2, rel=0.1)
    constant = make_study(epsilon=None, schedule="constant", optimizer=optimizer, learning_rate=0.01)
    assert distance(trained(constant, None, 2), trained(constant, None, 1)) == 0


@pytest.mark.parametrize("epsilon", [None, 8.0])
def test_what_can_be_learned_is_learned(epsilon: float | None) -> None:
    study = make_study(epsilon=epsilon, local_steps=30, learning_rate=0.5)
    patients = make_patients([1] * 120)
    weights = trained(study, None if epsilon is None else 1.0, patients=patients)
    assert _accuracy(study, weights, make_patients([1] * 60, seed=1)) > 0.85


def test_a_patient_that_is_not_finite_stops_nobody() -> None:
    patients = make_patients([1] * 12)
    pixels(patients)[3] = np.nan
    weights = trained(make_study(), patients=patients)
    assert all(np.isfinite(array).all() for array in weights.values())


@pytest.mark.parametrize(
    ("study", "noise_multiplier", "error", "reason"),
    [
        (make_study(), None, OrderError, Reason.BAD_TASK),
        (make_study(epsilon=None), 1.0, OrderError, Reason.BAD_TASK),
        (make_study(), 0.0, OrderError, Reason.BAD_TASK),
        (make_study(), float("nan"), OrderError, Reason.BAD_TASK),
        (make_study(learning_rate=3e38), 1000.0, NotFiniteError, Reason.NOT_FINITE),
    ],
)
def test_what_cannot_be_trained_is_refused(
    study: StudySpec, noise_multiplier: float | None, error: type[SiteError], reason: Reason
) -> None:
    with pytest.raises(error) as caught:
        trained(study, noise_multiplier)
    assert caught.value.reason == reason


def test_nobody_to_train_on_is_refused() -> None:
    with pytest.raises(TooFewPatientsError):
        trained(make_study(), patients=make_patients([]))


def test_progress_counts_planned_steps() -> None:
    told: list[float] = []
    study = make_study(local_steps=4)
    base = initial_weights(study)
    train(study, base, PATIENTS, make_noise(), noise_multiplier=1.0, round_number=1, report=told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


def _accuracy(study: StudySpec, weights: Weights, patients: PreparedPatients) -> float:
    import torch

    from site_node.training.evaluation import outputs_of
    from site_node.training.networks import build_network, load_into
    from site_node.training.objectives.binary import patient_scores

    network = build_network(study).eval()
    load_into(network, weights)
    scores = patient_scores(study, outputs_of(network, patients, torch.device("cpu")), patients)
    return float(((scores > 0.5) == patients.labels).mean())
