from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from site_node.privacy.clipping import PatientBatch, clip_factors, clipped_sum_of_batch, sum_clipped_per_patient
from site_node.privacy.per_image import HeldGradients
from site_node.training.networks import build_network
from site_node.training.objectives.binary import cross_entropy
from tests.site_node.privacy.examples import NETWORKS, UNEVEN, distance, make_exact, make_network, one_by_one
from tests.site_node.training.examples import SMALLEST, make_batch, make_study


def clipped(network: nn.Module, batch: PatientBatch, max_norm: float, images_at_once: int = 100) -> Tensor:
    return clipped_sum_of_batch(network, cross_entropy, batch, max_norm, images_at_once=images_at_once)


@pytest.mark.parametrize("size", [(16, 16), (16, 16, 16)], ids=["2D", "3D"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("max_norm", [0.05, 1000.0])
def test_a_batch_gives_what_a_loop_over_patients_gives(name: str, size: Sequence[int], max_norm: float) -> None:
    network, batch = make_exact(name, size, UNEVEN[:4] if name == "resnet18" else UNEVEN)
    assert distance(clipped(network, batch, max_norm), one_by_one(network, batch, max_norm)) < 1e-5


@pytest.mark.parametrize("normalisation", ["none", "instance", "layer"])
@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_a_loop_over_patients_gives_the_same_with_other_normalisations(name: str, normalisation: str) -> None:
    network, batch = make_exact(name, (16, 16), UNEVEN, normalisation)
    assert distance(clipped(network, batch, 0.05), one_by_one(network, batch, 0.05)) < 1e-5


@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_single_precision_gives_nearly_the_same(name: str) -> None:
    network, batch = make_network(name, (16, 16)), make_batch(UNEVEN)
    assert distance(clipped(network, batch, 0.05), one_by_one(network, batch, 0.05)) < 1e-4


def test_a_sum_is_the_same_to_the_bit_each_time() -> None:
    network, batch = make_network("resnet", (16, 16)), make_batch(UNEVEN)
    assert torch.equal(clipped(network, batch, 0.1), clipped(network, batch, 0.1))


def test_the_order_of_the_patients_does_not_matter() -> None:
    network, batch = make_exact("convnet", (16, 16), UNEVEN)
    turned = PatientBatch(batch.images.flip(0), batch.targets.flip(0), batch.counts.flip(0))
    assert torch.allclose(clipped(network, turned, 0.1), clipped(network, batch, 0.1), atol=1e-9)


@pytest.mark.parametrize("images_at_once", [1, 2, 7, 1000])
def test_the_size_of_chunks_does_not_matter(images_at_once: int) -> None:
    network, batch = build_network(make_study()), make_batch(UNEVEN)
    assert torch.allclose(clipped(network, batch, 0.1, images_at_once), clipped(network, batch, 0.1), atol=1e-6)


def moved_by_last(network: nn.Module, batch: PatientBatch, max_norm: float) -> float:
    """Return how far the last patient moves the clipped sum."""
    last = int(batch.counts[-1])
    without = PatientBatch(batch.images[:-last], batch.targets[:-last], batch.counts[:-1])
    return float((clipped(network, batch, max_norm) - clipped(network, without, max_norm)).norm())


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(SMALLEST)),
    images=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    max_norm=st.floats(1e-3, 10.0),
    scale=st.floats(0, 1e4),
)
def test_one_patient_with_any_number_of_images_moves_the_sum_by_at_most_the_norm(
    name: str, images: list[int], max_norm: float, scale: float
) -> None:
    network, batch = build_network(make_study(name)), make_batch(images)
    last = images[-1]
    batch = PatientBatch(torch.cat([batch.images[:-last], batch.images[-last:] * scale]), batch.targets, batch.counts)
    assert moved_by_last(network, batch, max_norm) <= max_norm * (1 + 1e-5)


@settings(max_examples=30, deadline=None)
@given(pairs=st.integers(1, 6), apart=st.floats(0, 1e-2), max_norm=st.sampled_from([1e-9, 1e-6, 1e-3, 1.0]))
def test_images_that_cancel_do_not_move_the_sum_further(pairs: int, apart: float, max_norm: float) -> None:
    # Equal images with opposite labels and a logit of 0: what is left of the gradient is mostly rounding.
    torch.manual_seed(pairs)
    network, batch = deep_and_narrow(), make_batch([1, 2 * pairs], (4, 4))
    near = batch.images[1 : 1 + pairs]
    images = torch.cat([batch.images[:1], near, near + apart * torch.randn_like(near)])
    targets = torch.tensor([1.0, *[0.0] * pairs, *[1.0] * pairs])
    assert moved_by_last(network, PatientBatch(images, targets, batch.counts), max_norm) <= max_norm * (1 + 1e-3)


def deep_and_narrow() -> nn.Module:
    """Many channels on few positions: the layers whose lengths come from products."""
    head = nn.Linear(256, 1)
    nn.init.zeros_(head.bias)
    nn.init.normal_(head.weight, std=1e-4)
    return nn.Sequential(nn.Conv2d(1, 64, 3, stride=2, padding=1), nn.Conv2d(64, 64, 3, padding=1), nn.Flatten(), head)


def test_a_patient_of_many_equal_images_weighs_as_one_of_one_image() -> None:
    network, single = build_network(make_study()), make_batch([1])
    many = PatientBatch(single.images.repeat(9, 1, 1, 1), single.targets.repeat(9), torch.tensor([9]))
    assert torch.allclose(clipped(network, many, 100.0), clipped(network, single, 100.0), atol=1e-6)


def test_short_gradients_are_not_lengthened() -> None:
    gradients = {"a": torch.tensor([[0.3, 0.0], [30.0, 40.0]]), "b": torch.tensor([[0.4], [0.0]])}
    assert clip_factors(HeldGradients(gradients).squares, 1.0).tolist() == pytest.approx([1.0, 0.02])
    assert sum_clipped_per_patient(gradients, 1.0).tolist() == pytest.approx([0.9, 0.8, 0.4])


def test_a_length_that_is_not_finite_gives_the_factor_0_and_no_length_the_factor_1() -> None:
    squares = torch.tensor([float("nan"), float("inf"), 0.0], dtype=torch.float64)
    assert clip_factors(squares, 1.0).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_patient_whose_gradient_is_not_finite_counts_as_zero(value: float) -> None:
    gradients = {"a": torch.tensor([[0.3, 0.4], [value, 1.0]]), "b": torch.tensor([[0.0], [2.0]])}
    assert sum_clipped_per_patient(gradients, 1.0).tolist() == pytest.approx([0.3, 0.4, 0.0])


@pytest.mark.parametrize("broken", [0, 2, 3])
@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_an_image_that_is_not_finite_stops_nobody_else(name: str, broken: int) -> None:
    network, (_, batch) = make_network(name, (16, 16)).double(), make_exact(name, (16, 16), [2, 1, 1, 3])
    spoilt = PatientBatch(batch.images.clone(), batch.targets, batch.counts)
    spoilt.images[spoilt.owners == broken] = float("nan")
    kept = batch.owners != broken
    others = PatientBatch(batch.images[kept], batch.targets[kept], batch.counts[torch.arange(4) != broken])
    total = clipped(network, spoilt, 1.0, images_at_once=100)
    assert torch.allclose(total, clipped(network, others, 1.0, images_at_once=100), atol=1e-9)
    assert total.any()


def test_nobody_drawn_sums_to_zero() -> None:
    network, batch = build_network(make_study()), make_batch([1])
    empty = PatientBatch(batch.images[:0], batch.targets[:0], batch.counts[:0])
    total = clipped(network, empty, 1.0)
    assert total.numel() == sum(p.numel() for p in network.parameters())
    assert not total.any()


def test_the_norm_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        sum_clipped_per_patient({"a": torch.ones(1, 1)}, 0.0)
