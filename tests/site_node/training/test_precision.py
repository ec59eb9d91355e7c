"""With bfloat16 a network multiplies in 8 bits, and the bound on one patient is the one of float32."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from protocol.errors import SpecificationError
from protocol.study import StudySpec
from protocol.tensors import Weights
from protocol.training_rules import WITHOUT_IMAGE_GRADIENTS
from site_node.privacy.clipping import PatientBatch, clipped_sum_of_batch
from site_node.training.networks import build_network, initial_weights
from site_node.training.objectives.choice import loss_of
from site_node.training.precision import in_precision
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.trainer import train
from tests.site_node.cohort.tables import table_study
from tests.site_node.privacy.test_classification_networks import SMALL
from tests.site_node.training.examples import SMALLEST, make_noise, make_patients, make_study
from tests.site_node.training.segmentation_examples import SMALLEST_OF_MASKS, make_drawn, make_segmentation

IMAGES = [1, 2, 3, 1, 2, 1]
SIZES: dict[str, Sequence[int]] = {"swinunetr": (32, 32)}
NETWORKS = sorted({*SMALLEST, *SMALL, *SMALLEST_OF_MASKS})
FLAT_AND_VOLUMES = [("convnet", (16, 16, 16)), *((name, SIZES.get(name, (16, 16))) for name in NETWORKS)]
EVERY_NETWORK = pytest.mark.parametrize(("network", "size"), FLAT_AND_VOLUMES)
EVERY_PRIVATE_NETWORK = pytest.mark.parametrize(
    ("network", "size"), [(name, size) for name, size in FLAT_AND_VOLUMES if name not in WITHOUT_IMAGE_GRADIENTS]
)


def study_of(network: str, size: Sequence[int], precision: str = "bfloat16", epsilon: float | None = 8.0) -> StudySpec:
    training: dict[str, Any] = {"local_steps": 2, "sampling_rate": 1.0, "learning_rate": 0.01, "precision": precision}
    if network in SMALLEST_OF_MASKS:
        return make_segmentation(network, size, epsilon, training=training)
    return make_study(network, size, epsilon, arguments={**SMALLEST, **SMALL}[network], **training)


def patients_of(study: StudySpec) -> PreparedPatients:
    make = make_drawn if study.kind == "segmentation" else make_patients
    return make(IMAGES, study.preprocessing.size)


def batch_of(patients: PreparedPatients, which: Sequence[int]) -> PatientBatch:
    return patients.batch([patients.images_of(number) for number in which], torch.device("cpu"))


def clipped(study: StudySpec, which: Sequence[int], bound: float) -> Tensor:
    torch.manual_seed(0)
    network = in_precision(study, build_network(study))
    for parameter in network.parameters():  # at version 0 a network's last layers may be zero
        parameter.data += 0.05 * torch.randn_like(parameter)
    return clipped_sum_of_batch(network, loss_of(study), batch_of(patients_of(study), which), bound, images_at_once=64)


def trained(study: StudySpec, noise_multiplier: float | None) -> Weights:
    start, noise = initial_weights(study), make_noise()
    return train(study, start, patients_of(study), noise, noise_multiplier=noise_multiplier, round_number=1)


def moved(study: StudySpec, noise_multiplier: float | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    after, before = trained(study, noise_multiplier), initial_weights(study)
    return np.concatenate([(after[name] - before[name]).ravel().astype(np.float64) for name in before])


@EVERY_NETWORK
def test_every_network_trains_nearly_as_in_float32(network: str, size: Sequence[int]) -> None:
    assert_nearly_the_same(network, size, None)


@EVERY_PRIVATE_NETWORK
def test_every_private_training_is_nearly_that_of_float32(network: str, size: Sequence[int]) -> None:
    assert_nearly_the_same(network, size, 1e-3)


def assert_nearly_the_same(network: str, size: Sequence[int], noise_multiplier: float | None) -> None:
    epsilon = None if noise_multiplier is None else 8.0
    exact, coarse = (
        moved(study_of(network, size, precision, epsilon), noise_multiplier) for precision in ("float32", "bfloat16")
    )
    apart = np.linalg.norm(exact - coarse) / np.linalg.norm(exact)
    assert 1e-6 < apart < 0.25  # it is another arithmetic, and the same training


@EVERY_PRIVATE_NETWORK
def test_one_patient_moves_a_sum_by_no_more_than_the_bound_and_by_all_of_it(network: str, size: Sequence[int]) -> None:
    study, bound = study_of(network, size), 1e-3
    for patient in range(len(IMAGES)):
        alone = clipped(study, [patient], bound)
        assert alone.dtype == torch.float64
        # What is added is what was measured: 8 bits would leave a part in a hundred.
        assert float(alone.norm()) == pytest.approx(bound, rel=1e-5)


@EVERY_PRIVATE_NETWORK
def test_the_sum_is_of_the_patients_each_clipped(network: str, size: Sequence[int]) -> None:
    study, bound = study_of(network, size), 1e-3
    everybody = range(len(IMAGES))
    alone = sum((clipped(study, [patient], bound) for patient in everybody), start=torch.zeros(1))
    together = clipped(study, list(everybody), bound)
    # The backward pass of a batch adds up in another order, in 8 bits.
    assert float((together - alone).norm()) < 0.02 * float(alone.norm())
    without_the_last = clipped(study, list(everybody)[:-1], bound)
    assert float((together - without_the_last).norm()) < 1.02 * bound


def test_weights_and_gradients_stay_float32() -> None:
    study = study_of("convnet", (16, 16), epsilon=None)
    network = in_precision(study, build_network(study))
    seen: list[torch.dtype] = []
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    outputs = network(torch.randn(2, 1, 16, 16))
    outputs.sum().backward()
    assert seen == [torch.bfloat16]
    assert outputs.dtype == torch.float32
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}


def test_float32_leaves_a_network_as_it_is() -> None:
    study = study_of("convnet", (16, 16), "float32")
    network = build_network(study)
    assert in_precision(study, network).forward == type(network).forward.__get__(network)


def test_a_table_is_refused_with_the_reason() -> None:
    with pytest.raises(SpecificationError, match=r"training\.precision: a table's values"):
        table_study(training={"precision": "bfloat16"})


def test_what_torch_cannot_compute_image_by_image_is_refused_with_the_reason() -> None:
    with pytest.raises(SpecificationError, match=r"training\.precision: torch makes no single image's gradient"):
        study_of("swinunetr", (32, 32))
