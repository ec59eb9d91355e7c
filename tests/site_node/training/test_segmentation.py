"""Segmentation: the loss, patients' Dice coefficients, masks that stay on their images, and private gradients."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from site_node.errors import UnknownNetworkError
from site_node.privacy.clipping import clipped_sum_of_batch
from site_node.privacy.layerwise import covers
from site_node.privacy.patient_batch import Loss, PatientBatch
from site_node.training.evaluation import evaluate
from site_node.training.networks import build_network, images_at_once, initial_weights
from site_node.training.objectives.segmentation import (
    cross_entropy_of_pixels,
    dice_loss,
    patients_dice,
    segmentation_loss,
)
from site_node.training.patients import draw_batch
from site_node.training.prepared_masks import on_the_grid
from site_node.training.trainer import train
from site_node.training.transforms import augment, augment_with_masks, preparation
from tests.site_node.training.examples import make_noise
from tests.site_node.training.segmentation_examples import SMALLEST_OF_MASKS, make_drawn, make_segmentation

CPU = torch.device("cpu")


def clipped_one_by_one(network: nn.Module, loss: Loss, batch: PatientBatch, max_norm: float) -> Tensor:
    """The definition, as a loop: ordinary backward passes over each patient's mean loss."""
    parameters = list(network.parameters())
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    start = 0
    for count in batch.counts.tolist():
        own = slice(start, start + count)
        start += count
        mean = loss(network(batch.images[own]), batch.targets[own]).mean()
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(mean, parameters)]).double()
        total += gradient * min(1.0, max_norm / float(gradient.norm()))
    return total


@pytest.mark.parametrize("max_norm", [0.05, 1000.0])
@pytest.mark.parametrize(
    ("name", "size", "normalisation"),
    [
        ("unet", (16, 16), "group"),
        ("unet", (16, 16), "instance"),
        ("unet", (16, 16, 16), "group"),
        ("segresnet", (16, 16), "group"),
        ("segresnet", (16, 16), "instance"),
        ("segresnet", (16, 16, 16), "instance"),
        ("swinunetr", (32, 32), "group"),
    ],
    ids=str,
)
def test_patients_clipped_gradients_are_those_of_a_loop(
    name: str, size: Sequence[int], normalisation: str, max_norm: float
) -> None:
    study = make_segmentation(name, size, epsilon=8.0, normalisation=normalisation)
    # float64, where no rounding decides on which side of a ReLU's kink a value is; SwinUNETR's convolutions have none
    exact = torch.float32 if name == "swinunetr" else torch.float64
    network, loss = build_network(study).to(exact), segmentation_loss(study)
    patients = make_drawn([1, 2, 1], size)
    drawn = patients.batch([patients.images_of(number) for number in range(3)], CPU)
    batch = PatientBatch(drawn.images.to(exact), drawn.targets.to(exact), drawn.counts)
    total = clipped_sum_of_batch(network, loss, batch, max_norm, images_at_once=2)
    expected = clipped_one_by_one(network, loss, batch, max_norm)
    assert covers(network) == (name == "segresnet")
    assert float((total - expected).norm() / expected.norm()) < 1e-4


def test_a_unet_with_prelu_has_the_clipped_gradients_of_a_loop_too() -> None:
    study = make_segmentation("unet", epsilon=8.0)
    sizes = {**study.network.arguments, "activation": "prelu"}
    study = study.model_copy(update={"network": study.network.model_copy(update={"arguments": sizes})})
    network, loss = build_network(study).double(), segmentation_loss(study)
    assert any(isinstance(layer, nn.PReLU) for layer in network.modules())
    patients = make_drawn([1, 2, 1])
    drawn = patients.batch([patients.images_of(number) for number in range(3)], CPU)
    batch = PatientBatch(drawn.images.double(), drawn.targets.double(), drawn.counts)
    total = clipped_sum_of_batch(network, loss, batch, 0.05, images_at_once=2)
    expected = clipped_one_by_one(network, loss, batch, 0.05)
    assert float((total - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize("name", sorted(SMALLEST_OF_MASKS))
def test_no_network_mixes_the_images_of_a_batch(name: str) -> None:
    network = build_network(make_segmentation(name, (32, 32))).eval()
    images = torch.randn(3, 1, 32, 32)
    assert network(images).shape == (3, 2, 32, 32)
    assert torch.allclose(network(images)[:1], network(images[:1]), atol=1e-4)


def test_a_network_that_gives_no_masks_is_refused_with_those_that_do() -> None:
    with pytest.raises(UnknownNetworkError, match=r"gives outputs.*unet, segresnet, swinunetr"):
        build_network(make_segmentation(network="unet").model_copy(
            update={"network": make_segmentation().network.model_copy(update={"name": "densenet", "arguments": {}})}
        ))  # fmt: skip


def test_an_edge_that_the_network_cannot_halve_is_refused() -> None:
    with pytest.raises(UnknownNetworkError, match="too small"):
        build_network(make_segmentation("unet", (15, 16)))


def test_images_at_once_keep_a_volume_whole() -> None:
    assert images_at_once(make_segmentation("swinunetr", (64, 64, 64))) == 1


def certain_of(classes: Tensor, sharpness: float = 60.0) -> Tensor:
    """Return logits that are sure of these classes. Shapes: classes (image, *size)."""
    return sharpness * torch.stack([(classes == 0).double(), (classes == 1).double()], 1)


def test_the_losses_of_four_pixels_are_those_of_the_formulas() -> None:
    drawn = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]).double()
    even = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    # softmax 1/2 everywhere: 1 - (2 * (1/2 + 1/2) + 1) / (4 * 1/2 + 2 + 1)
    assert float(dice_loss(even, drawn)[0]) == pytest.approx(1 - 3 / 5)
    assert float(cross_entropy_of_pixels(even, drawn)[0]) == pytest.approx(math.log(2))
    both = segmentation_loss(make_segmentation())
    assert float(both(even, drawn)[0]) == pytest.approx(1 - 3 / 5 + math.log(2))
    assert float(both(certain_of(drawn), drawn)[0]) == pytest.approx(0.0, abs=1e-9)


def test_an_image_without_the_class_has_a_finite_gradient() -> None:
    logits = torch.full((1, 2, 2, 2), 0.0, dtype=torch.float64)
    logits[:, 0] = 80.0
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(dice_loss(logits, torch.zeros(1, 2, 2).double()).sum(), logits)
    assert torch.isfinite(gradient).all()
    assert float(gradient.norm()) < 1e-9  # nothing is drawn and nothing found: nothing is to be learnt


def test_a_patient_is_judged_by_all_images_together() -> None:
    patients = make_drawn([2, 1, 1], (4, 4))
    masks = np.zeros((4, 4, 4), np.uint8)
    masks[0, 0], masks[1, 0, 0] = 1, 1  # the first patient: 4 and 1 pixels
    masks[2, 0, :2] = 1  # the second: 2 pixels; the third: none
    patients = type(patients)(**{**patients.__dict__, "masks": masks})
    found = torch.zeros(4, 4, 4)
    found[0, 0, :3], found[2, 1] = 1, 1
    outputs = certain_of(found)
    dice = patients_dice(make_segmentation(size=(8, 8)), iter([outputs[:1], outputs[1:]]), patients)
    # 2 * 3 / (3 + 5); nothing in common; neither has any
    assert dice[:, 0].tolist() == [0.75, 0.0, 1.0]


def test_outputs_that_are_no_numbers_fail_nothing() -> None:
    patients = make_drawn([1, 1], (8, 8))
    outputs = torch.full((2, 2, 8, 8), float("nan"), dtype=torch.float64)
    dice = patients_dice(make_segmentation(size=(8, 8)), [outputs], patients)
    assert np.isfinite(dice).all()


def test_a_mask_is_padded_and_resized_as_its_image() -> None:
    # A bright box in an oblong picture: prepared, the bright pixels are those of the prepared mask.
    picture, mask = np.zeros((40, 96), np.float32), np.zeros((40, 96), np.uint8)
    picture[8:24, 48:80], mask[8:24, 48:80] = 1.0, 1
    study = make_segmentation(size=(24, 24))
    prepared = preparation(study.preprocessing)(picture)[0]
    assert ((prepared > 0) == on_the_grid(mask, [24, 24]).astype(bool)).all()


def test_augmentation_moves_image_and_mask_alike_and_the_image_as_without_a_mask() -> None:
    masks = torch.zeros(6, 32, 32)
    masks[:, 10:20, 8:18] = 1
    images = masks.unsqueeze(1) * 4.0
    moved, drawn = augment_with_masks(images, masks, "medium", make_noise().augmentation)
    assert torch.equal(moved, augment(images, "medium", make_noise().augmentation))
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert not torch.equal(drawn, masks)
    bright = moved[:, 0] > moved[:, 0].flatten(1).mean(1).view(-1, 1, 1)
    overlap = 2 * (bright & (drawn > 0)).sum() / (bright.sum() + (drawn > 0).sum())
    assert float(overlap) > 0.9


def test_a_drawn_batch_has_the_masks_of_its_images() -> None:
    study = make_segmentation()
    patients = make_drawn([1, 3, 2])
    batch = draw_batch(study, patients, make_noise(), CPU)
    assert batch.targets.shape == (len(batch.images), 16, 16)
    assert float((batch.images[:, 0] * batch.targets).sum() / batch.targets.sum()) > 2.0  # the box is bright


@pytest.mark.parametrize("epsilon", [None, 8.0])
def test_training_takes_its_steps_with_and_without_privacy(epsilon: float | None) -> None:
    study = make_segmentation(epsilon=epsilon)
    base = initial_weights(study)
    noise_multiplier = None if epsilon is None else 1.0
    trained = train(
        study, base, make_drawn([1, 2, 2, 1]), make_noise(), noise_multiplier=noise_multiplier, round_number=1
    )
    assert any(not np.array_equal(trained[name], base[name]) for name in base)


def test_a_network_learns_the_boxes_and_its_report_says_so() -> None:
    study = make_segmentation(
        training={"local_steps": 60, "sampling_rate": 1.0, "optimizer": "adam", "learning_rate": 0.02}
    )
    base, patients = initial_weights(study), make_drawn([2] * 8)
    trained = train(study, base, patients, make_noise(), noise_multiplier=None, round_number=1)
    held_out = {"test": make_drawn([2] * 10, seed=1)}
    before, after = (evaluate(study, weights, held_out, make_noise())["test"] for weights in (base, trained))  # type: ignore[arg-type]
    assert sum(count for _, count in after[0].counts) == 10
    assert np.average([bin_ for bin_, _ in after[0].counts]) > np.average([bin_ for bin_, _ in before[0].counts])
    assert min(bin_ for bin_, _ in after[0].counts) > 256  # every patient above 0.5
