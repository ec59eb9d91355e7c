from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from site_node.privacy.clipping import PatientBatch, clip_factors, clipped_sum_of_batch, sum_clipped_per_patient
from site_node.training.networks import build_network
from site_node.training.objectives import cross_entropy
from tests.site_node.training.examples import SMALLEST, make_batch, make_study

IMAGES = [1, 3, 1, 2, 5, 1, 1]


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


def clipped(network: nn.Module, batch: PatientBatch, max_norm: float, images_at_once: int = 4) -> Tensor:
    return clipped_sum_of_batch(network, cross_entropy, batch, max_norm, images_at_once=images_at_once)


@pytest.mark.parametrize("size", [(16, 16), (16, 16, 16)], ids=["2D", "3D"])
@pytest.mark.parametrize("name", sorted(SMALLEST))
@pytest.mark.parametrize("max_norm", [0.05, 1000.0])
def test_a_batch_gives_what_a_loop_over_patients_gives(name: str, size: Sequence[int], max_norm: float) -> None:
    network, batch = build_network(make_study(name, size)), make_batch(IMAGES, size)
    expected = one_by_one(network, batch, max_norm)
    assert torch.allclose(clipped(network, batch, max_norm), expected, rtol=1e-4, atol=1e-4 * float(expected.norm()))


@pytest.mark.parametrize("images_at_once", [1, 2, 7, 1000])
def test_the_size_of_chunks_does_not_matter(images_at_once: int) -> None:
    network, batch = build_network(make_study()), make_batch(IMAGES)
    assert torch.allclose(clipped(network, batch, 0.1, images_at_once), clipped(network, batch, 0.1), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    images=st.lists(st.integers(1, 12), min_size=1, max_size=6), max_norm=st.floats(1e-3, 10.0), scale=st.floats(0, 1e4)
)
def test_one_patient_with_any_number_of_images_moves_the_sum_by_at_most_the_norm(
    images: list[int], max_norm: float, scale: float
) -> None:
    network, batch = build_network(make_study()), make_batch(images)
    last = images[-1]
    batch = PatientBatch(torch.cat([batch.images[:-last], batch.images[-last:] * scale]), batch.targets, batch.counts)
    without = PatientBatch(batch.images[:-last], batch.targets[:-last], batch.counts[:-1])
    moved = clipped(network, batch, max_norm) - clipped(network, without, max_norm)
    assert float(moved.norm()) <= max_norm * (1 + 1e-5)


def test_a_patient_of_many_equal_images_weighs_as_one_of_one_image() -> None:
    network, single = build_network(make_study()), make_batch([1])
    many = PatientBatch(single.images.repeat(9, 1, 1, 1), single.targets.repeat(9), torch.tensor([9]))
    assert torch.allclose(clipped(network, many, 100.0), clipped(network, single, 100.0), atol=1e-6)


def test_short_gradients_are_not_lengthened() -> None:
    gradients = {"a": torch.tensor([[0.3, 0.0], [30.0, 40.0]]), "b": torch.tensor([[0.4], [0.0]])}
    assert clip_factors(gradients, 1.0).tolist() == pytest.approx([1.0, 0.02])
    assert sum_clipped_per_patient(gradients, 1.0).tolist() == pytest.approx([0.9, 0.8, 0.4])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_patient_whose_gradient_is_not_finite_counts_as_zero(value: float) -> None:
    gradients = {"a": torch.tensor([[0.3, 0.4], [value, 1.0]]), "b": torch.tensor([[0.0], [2.0]])}
    assert sum_clipped_per_patient(gradients, 1.0).tolist() == pytest.approx([0.3, 0.4, 0.0])


def test_an_image_that_is_not_finite_stops_nobody_else() -> None:
    network, batch = build_network(make_study()), make_batch([1, 1, 2])
    broken = PatientBatch(batch.images.clone(), batch.targets, batch.counts)
    broken.images[-1] = float("nan")
    others = PatientBatch(batch.images[:2], batch.targets[:2], batch.counts[:2])
    assert torch.allclose(clipped(network, broken, 1.0), clipped(network, others, 1.0), atol=1e-6)


def test_nobody_drawn_sums_to_zero() -> None:
    network, batch = build_network(make_study()), make_batch([1])
    empty = PatientBatch(batch.images[:0], batch.targets[:0], batch.counts[:0])
    total = clipped(network, empty, 1.0)
    assert total.numel() == sum(p.numel() for p in network.parameters())
    assert not total.any()


def test_chunks_never_cut_a_patient() -> None:
    chunks = list(make_batch(IMAGES).chunks(3))
    assert [chunk.counts.tolist() for chunk in chunks] == [[1], [3], [1, 2], [5], [1, 1]]
    assert all(len(chunk.images) == int(chunk.counts.sum()) for chunk in chunks)


def test_the_norm_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        sum_clipped_per_patient({"a": torch.ones(1, 1)}, 0.0)
