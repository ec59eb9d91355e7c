"""Each network of classes, with one output and several: patients' gradients are those of a loop over the patients."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from protocol.study import StudySpec, parse_study
from site_node.privacy.clipping import clipped_sum_of_batch
from site_node.privacy.patient_batch import Loss, PatientBatch
from site_node.training.networks import build_network
from site_node.training.objectives.choice import loss_of
from tests.site_node.privacy.examples import UNEVEN
from tests.site_node.training.examples import make_batch, make_study

SMALL: dict[str, dict[str, Any]] = {
    "densenet": {"init_features": 4, "growth_rate": 4, "block_config": [1, 1], "groups": 2},
    "resnet": {"planes": [4, 4, 8, 8], "first_kernel": 3, "first_stride": 1, "max_pool": False, "groups": 2},
    "efficientnet": {"channels": [8, 8], "blocks": [1, 1], "kernels": [3, 3], "strides": [1, 2], "expansion": 2},
    "vit": {"patch": 4, "hidden": 8, "mlp": 16, "layers": 2, "heads": 2},
}
LABELS: dict[str, dict[str, Any]] = {
    "two classes": {"classes": ["no", "yes"], "weights": [1.0, 3.0]},
    "three classes": {"classes": ["a", "b", "c"], "weights": [1.0, 2.0, 0.5], "focal": 2.0},
    "findings": {"classes": ["a", "b", "c"], "several": True, "focal": 1.0},
}


def study_of(network: str, size: Sequence[int], label: dict[str, Any]) -> StudySpec:
    document = make_study(network, size, arguments=SMALL[network]).model_dump(mode="json", by_alias=True)
    return parse_study(document | {"label": label})


def batch_of(study: StudySpec) -> PatientBatch:
    """Return patients in float64 with targets of the study's kind; of findings a third are not known."""
    batch, generator = make_batch(UNEVEN, study.preprocessing.size), np.random.default_rng(1)
    images = len(batch.images)
    if study.outcome == "multi-label":
        targets = generator.integers(0, 2, (images, 3)).astype(np.float64)
        targets[generator.random((images, 3)) < 1 / 3] = np.nan
    else:
        targets = generator.integers(0, len(study.label.classes), images).astype(np.float64)
    return PatientBatch(batch.images.double(), torch.from_numpy(targets), batch.counts)


def loop_over_patients(network: nn.Module, loss: Loss, batch: PatientBatch, max_norm: float) -> Tensor:
    """The definition: ordinary backward passes over each patient's mean loss."""
    parameters = list(network.parameters())
    total, start = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64), 0
    for count in batch.counts.tolist():
        own = slice(start, start := start + count)
        mean = loss(network(batch.images[own]), batch.targets[own]).mean()
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(mean, parameters)])
        total += gradient * min(1.0, max_norm / float(gradient.norm()))
    return total


@pytest.mark.parametrize("size", [(16, 16), (16, 16, 16)], ids=["2D", "3D"])
@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("name", SMALL)
def test_clipped_sums_are_those_of_a_loop_over_the_patients(
    name: str, label: dict[str, Any], size: tuple[int, ...]
) -> None:
    study = study_of(name, size, label)
    network, batch = build_network(study).double(), batch_of(study)
    expected = loop_over_patients(network, loss_of(study), batch, 0.05)
    found = clipped_sum_of_batch(network, loss_of(study), batch, 0.05, images_at_once=4)
    assert float((found - expected).norm() / expected.norm()) < 1e-4
    assert float(expected.norm()) > 0
