import math
from typing import Any

import numpy as np
import pytest
import torch

from protocol.label import Label
from protocol.metrics import NOISED_BINS, geometric_variance, summarise
from protocol.study import StudySpec, parse_study
from site_node.training.evaluation import evaluate
from site_node.training.networks import initial_weights
from site_node.training.objectives.binary import cross_entropy
from site_node.training.objectives.choice import loss_of, objective_of
from site_node.training.objectives.multi_class import softmax_cross_entropy
from site_node.training.objectives.multi_label import masked_cross_entropy
from site_node.training.prepared_patients import PreparedPatients
from tests.site_node.training.examples import make_noise, make_patients, make_study


def study_of(label: dict[str, Any], **parts: Any) -> StudySpec:
    document = make_study(epsilon=None).model_dump(mode="json", by_alias=True)
    return parse_study(document | {"label": label} | parts)


THREE: dict[str, Any] = {"classes": ["a", "b", "c"]}
FINDINGS: dict[str, Any] = {"classes": ["a", "b", "c"], "several": True}


def test_softmax_cross_entropy_of_an_image_by_hand() -> None:
    outputs = torch.tensor([[math.log(2.0), 0.0, 0.0], [0.0, 0.0, 0.0]])
    losses = softmax_cross_entropy(outputs, torch.tensor([0.0, 2.0]))
    assert torch.allclose(losses, torch.tensor([math.log(4 / 2), math.log(3)]))


def test_a_finding_that_is_not_known_adds_nothing_to_loss_and_gradient() -> None:
    outputs = torch.zeros(2, 3, requires_grad=True)
    targets = torch.tensor([[1.0, torch.nan, 0.0], [torch.nan, torch.nan, 1.0]])
    losses = masked_cross_entropy(Label.model_validate(FINDINGS), outputs, targets)
    assert torch.allclose(losses, torch.tensor([2.0, 1.0]) * math.log(2) / 3)
    (gradient,) = torch.autograd.grad(losses.sum(), outputs)
    assert torch.allclose(gradient, torch.tensor([[-0.5, 0.0, 0.5], [0.0, 0.0, -0.5]]) / 3)


@pytest.mark.parametrize(
    ("label", "target", "expected"),
    [
        ({"classes": ["no", "yes"], "weights": [1.0, 3.0]}, [0.0, 1.0], [math.log(2), 3 * math.log(2)]),
        ({"classes": ["no", "yes"], "focal": 2.0}, [0.0, 1.0], [math.log(2) / 4, math.log(2) / 4]),
        ({**THREE, "weights": [1.0, 2.0, 4.0]}, [0.0, 2.0], [math.log(3), 4 * math.log(3)]),
        ({**THREE, "focal": 1.0}, [0.0, 2.0], [math.log(3) * 2 / 3, math.log(3) * 2 / 3]),
    ],
)
def test_losses_are_weighted_by_the_studys_stated_numbers(
    label: dict[str, Any], target: list[float], expected: list[float]
) -> None:
    study = study_of(label)
    outputs = torch.zeros(2, objective_of(study).outputs)
    assert torch.allclose(loss_of(study)(outputs, torch.tensor(target)), torch.tensor(expected))


def test_a_finding_that_is_absent_weighs_one() -> None:
    study = study_of({**FINDINGS, "weights": [5.0, 1.0, 1.0]})
    losses = loss_of(study)(torch.zeros(2, 3), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert torch.allclose(losses, torch.tensor([7.0, 3.0]) * math.log(2) / 3)


def test_without_weights_two_classes_have_the_loss_that_they_always_had() -> None:
    study, outputs, targets = make_study(), torch.randn(5, 1), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    assert torch.equal(loss_of(study)(outputs, targets), cross_entropy(outputs, targets))


def patients_with(labels: list[int]) -> PreparedPatients:
    patients = make_patients([1] * len(labels))
    return PreparedPatients(
        patients.images, patients.rows, np.array(labels, np.float32), patients.first_image, np.array(labels, np.int64)
    )


def test_each_patient_is_counted_once_for_each_class() -> None:
    study, patients = study_of(THREE), patients_with([0, 1, 1, 2, 2, 2])
    (classes,) = evaluate(study, initial_weights(study), {"test": patients}, make_noise()).values()
    assert [summarise(own).patients for own in classes] == [6, 6, 6]
    assert [summarise(own).positives for own in classes] == [1, 2, 3]


def test_who_is_not_known_for_a_finding_is_not_counted_for_it() -> None:
    study = study_of(FINDINGS)
    findings = ((1, None, 0), (0, None, 1), (1, 1, None), (0, 0, 0))
    patients = make_patients([1, 1, 1, 1])
    known = PreparedPatients(
        patients.images, patients.rows, patients.targets, patients.first_image, patients.labels, findings=findings
    )
    (classes,) = evaluate(study, initial_weights(study), {"test": known}, make_noise()).values()
    assert [summarise(own).patients for own in classes] == [4, 2, 3]
    assert [summarise(own).positives for own in classes] == [2, 1, 1]


@pytest.mark.parametrize("label", [THREE, FINDINGS])
def test_the_noises_epsilon_is_shared_out_among_the_classes(label: dict[str, Any]) -> None:
    study = study_of(label, evaluation={"noise_epsilon": 3.0})
    patients = make_patients([1, 1, 1])
    held_out = PreparedPatients(
        patients.images,
        patients.rows,
        patients.targets,
        patients.first_image,
        patients.labels,
        findings=((1, 0, 0),) * 3,
    )
    (classes,) = evaluate(study, initial_weights(study), {"test": held_out}, make_noise()).values()
    assert {own.bins for own in classes} == {NOISED_BINS}
    assert {own.noise_variance for own in classes} == {geometric_variance(1.0)}
    assert classes[0] != classes[1]
