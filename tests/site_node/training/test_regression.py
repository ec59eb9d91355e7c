"""Regression: losses in parts of the range, patients' errors in the unit of the numbers, and private gradients."""

from typing import Any

import numpy as np
import pytest
import torch

from protocol.study import StudySpec, parse_study
from protocol.value_histograms import summarise_values
from site_node.privacy.clipping import clipped_sum_of_batch
from site_node.training.evaluation import evaluate
from site_node.training.networks import build_network, initial_weights
from site_node.training.objectives.regression import patients_errors, regression_loss
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.trainer import train
from tests.site_node.training.examples import SMALLEST, make_noise
from tests.site_node.training.test_segmentation import clipped_one_by_one


def make_regression(epsilon: float | None = None, **parts: Any) -> StudySpec:
    return parse_study(
        {
            "name": "bone-age",
            "kind": "regression",
            "label": {"column": "months"},
            "regression": {"low": 0, "high": 200, "unit": "months"},
            "preprocessing": {"size": [16, 16], "augmentation": "none"},
            "network": {"name": "convnet", "arguments": SMALLEST["convnet"]},
            "training": {"local_steps": 2, "sampling_rate": 0.5},
            "rounds": 2,
            "participants": {"training_patients": 100},
            "privacy": {"epsilon": epsilon, "delta": 1e-4},
            **parts,
        }
    )


def make_measured(patients: int, seed: int = 0) -> PreparedPatients:
    """Return made-up patients, two images each, whose number is how bright the upper half is."""
    generator = np.random.default_rng(seed)
    parts = np.repeat(generator.uniform(size=patients), 2).astype(np.float32)
    images = generator.normal(size=(2 * patients, 1, 16, 16)) * 0.1
    images[:, :, :8] += 4.0 * parts[:, None, None, None] - 2.0
    return PreparedPatients(
        images=images.astype(np.float16),
        rows=np.arange(2 * patients),
        targets=parts,
        first_image=np.arange(0, 2 * patients + 1, 2),
        labels=np.zeros(patients, np.int64),
    )


def test_huber_is_squared_up_to_its_bend_and_even_beyond() -> None:
    outputs, targets = torch.tensor([[0.05], [0.5], [0.0]]), torch.tensor([0.0, 0.0, 0.0])
    huber = regression_loss(make_regression())(outputs, targets)
    assert huber.tolist() == pytest.approx([0.5 * 0.05**2, 0.1 * (0.5 - 0.05), 0.0])
    squared = regression_loss(make_regression(regression={"high": 200, "loss": "squared"}))(outputs, targets)
    assert squared.tolist() == pytest.approx([0.0025, 0.25, 0.0])


def test_a_patients_error_is_of_the_mean_of_the_images_in_the_unit_of_the_numbers() -> None:
    patients = make_measured(3)
    wanted = torch.from_numpy(patients.targets.astype(np.float64))
    shift = torch.tensor([0.1, 0.0, -0.1, 0.1, 0.0, 0.0])  # the second patient's images err against each other
    shift[4:] = float("nan")
    inside = (wanted * 0.5 + 0.2).clone()
    measured = PreparedPatients(**{**patients.__dict__, "targets": inside.numpy().astype(np.float32)})
    errors = patients_errors(make_regression(), [(inside + shift).unsqueeze(1)], measured)
    assert errors.tolist() == pytest.approx([10.0, 0.0, 200.0], abs=1e-3)


def test_patients_clipped_gradients_are_those_of_a_loop() -> None:
    study = make_regression(epsilon=8.0)
    network, loss, patients = build_network(study), regression_loss(study), make_measured(3)
    batch = patients.batch([patients.images_of(number) for number in range(3)], torch.device("cpu"))
    total = clipped_sum_of_batch(network, loss, batch, 0.05, images_at_once=2)
    expected = clipped_one_by_one(network, loss, batch, 0.05)
    assert float((total - expected).norm() / expected.norm()) < 1e-4


def test_a_network_learns_the_number_and_its_report_says_how_far_off_it_is() -> None:
    study = make_regression(
        training={"local_steps": 60, "sampling_rate": 1.0, "optimizer": "adam", "learning_rate": 0.01}
    )
    base, held_out = initial_weights(study), make_measured(20, seed=1)
    trained = train(study, base, make_measured(30), make_noise(), noise_multiplier=None, round_number=1)
    errors = []
    for weights in (base, trained):
        (histogram,) = evaluate(study, weights, {"test": held_out}, make_noise())["test"]
        assert (histogram.low, histogram.high) == (0.0, 200.0)
        errors.append(summarise_values(histogram).mean or 0.0)
    assert errors[1] < 20 < errors[0]
