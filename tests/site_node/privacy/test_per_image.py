import pytest
import torch
from torch import Tensor, nn

from site_node.privacy.clipping import clipped_sum_of_batch
from site_node.privacy.layerwise import covers
from site_node.privacy.patient_batch import PatientBatch
from site_node.training.objectives.binary import cross_entropy
from tests.site_node.privacy.examples import UNEVEN, distance, one_by_one
from tests.site_node.training.examples import make_batch


class Slope(nn.Module):
    """A layer with parameters that `layerwise.py` has no rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.3))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.where(maps > 0, maps, self.slope * maps)


def make_unknown() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), Slope(), nn.Flatten(), nn.Linear(147, 1))


@pytest.mark.parametrize("images_at_once", [1, 4, 100])
@pytest.mark.parametrize("max_norm", [0.05, 1000.0])
def test_a_network_without_rules_gives_what_a_loop_over_patients_gives(max_norm: float, images_at_once: int) -> None:
    network, batch = make_unknown(), make_batch(UNEVEN)
    total = clipped_sum_of_batch(network, cross_entropy, batch, max_norm, images_at_once=images_at_once)
    assert not covers(network)
    assert distance(total, one_by_one(network, batch, max_norm)) < 1e-4


def test_an_image_that_is_not_finite_stops_nobody_else() -> None:
    network, batch = make_unknown(), make_batch([1, 1, 2])
    broken = PatientBatch(batch.images.clone(), batch.targets, batch.counts)
    broken.images[-1] = float("nan")
    others = PatientBatch(batch.images[:2], batch.targets[:2], batch.counts[:2])
    sums = [clipped_sum_of_batch(network, cross_entropy, b, 1.0, images_at_once=9) for b in (broken, others)]
    assert torch.allclose(sums[0], sums[1], atol=1e-6)
