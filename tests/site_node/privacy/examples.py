"""The definition that clipped sums are held against, and networks and patients for it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from site_node.privacy.clipping import PatientBatch
from site_node.training.networks import build_network
from site_node.training.objectives.binary import cross_entropy
from tests.site_node.training.examples import SMALLEST, make_batch, make_study

RESNET18 = {"layers": [2, 2, 2, 2], "planes": [64, 128, 256, 512]}
NETWORKS = {**{name: (name, sizes) for name, sizes in SMALLEST.items()}, "resnet18": ("resnet", RESNET18)}
UNEVEN = [1, 3, 1, 2, 5, 1, 1]


def one_by_one(network: nn.Module, batch: PatientBatch, max_norm: float) -> Tensor:
    """The definition, as a loop: ordinary backward passes over each patient's mean loss."""
    parameters = list(network.parameters())
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    start = 0
    for count in batch.counts.tolist():
        images, targets = batch.images[start : start + count], batch.targets[start : start + count]
        start += count
        loss = cross_entropy(network(images).squeeze(1), targets).mean()
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]).double()
        total += gradient * min(1.0, max_norm / float(gradient.norm()))
    return total


def make_network(name: str, size: Sequence[int], normalisation: str = "group") -> nn.Module:
    """Build one of `NETWORKS`."""
    kind, sizes = NETWORKS[name]
    return build_network(make_study(kind, size, normalisation=normalisation, arguments=sizes))


def make_exact(
    name: str, size: Sequence[int], images: Sequence[int], normalisation: str = "group"
) -> tuple[nn.Module, PatientBatch]:
    """Return a network and patients in float64, where no rounding decides on which side of a ReLU's kink a value is."""
    batch = make_batch(images, size)
    exact = PatientBatch(batch.images.double(), batch.targets.double(), batch.counts)
    return make_network(name, size, normalisation).double(), exact


def distance(one: Tensor, other: Tensor) -> float:
    """Return how far a sum is from another, relative to the other."""
    return float((one - other).norm() / other.norm())
