"""Which class each pixel belongs to: Dice and cross entropy, and histograms of held-out patients' Dice coefficients.

A patient is judged by all of their images together, on the study's grid (`preprocessing.size`): the Dice coefficient of
a class is twice the pixels that are of it in mask and prediction, over the pixels that are of it in either, counted
twice where in both. Where neither has any it is 1.
Sources: Dice 1945; Milletari et al. 2016, arXiv:1606.04797 (the loss); MONAI's `DiceLoss`.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from monai.losses import DiceLoss
from numpy.typing import NDArray
from torch import Tensor

from protocol.study import StudySpec
from protocol.value_histograms import ValueHistogram
from site_node.cohort.cohort import Patient
from site_node.privacy.noise import NoiseSource
from site_node.privacy.patient_batch import Loss
from site_node.training.objectives.objective import Objective, Targets
from site_node.training.objectives.values import noised_values, values_of_nobody
from site_node.training.prepared_patients import PreparedPatients

SMOOTH_PIXELS = 1.0
"""Added above and below, so that a class that an image lacks has a loss whose gradient is bounded."""


def _targets(_study: StudySpec, patients: Sequence[Patient]) -> Targets:
    """Return nothing for each image: masks are mapped from disk beside the images (`training/prepared_masks.py`)."""
    return np.empty((sum(len(patient.images) for patient in patients), 0), np.float32)


def segmentation_loss(study: StudySpec) -> Loss:
    """Return the loss of images. Shapes: outputs (image, class, *size), targets (image, *size); result (image,)."""
    terms = {
        "dice": [dice_loss],
        "cross-entropy": [cross_entropy_of_pixels],
        "dice-cross-entropy": [dice_loss, cross_entropy_of_pixels],
    }[study.segmentation.loss]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.stack([term(outputs, targets) for term in terms]).sum(0)

    return loss


def dice_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each image's Dice loss, the mean over the classes but the background. Shapes as in the study's loss."""
    dice = DiceLoss(
        include_background=False, softmax=True, reduction="none", smooth_nr=SMOOTH_PIXELS, smooth_dr=SMOOTH_PIXELS
    )
    losses: Tensor = dice(outputs, _one_hot(targets, outputs))
    return losses.flatten(1).mean(1)


def cross_entropy_of_pixels(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each image's mean cross entropy over its pixels. Shapes as in the study's loss."""
    own = (torch.log_softmax(outputs, 1) * _one_hot(targets, outputs)).sum(1)
    return -own.flatten(1).mean(1)


def _one_hot(targets: Tensor, outputs: Tensor) -> Tensor:
    # By comparison and not by indices: it has to pass through torch.func's vmap.
    classes = torch.arange(outputs.shape[1], device=targets.device, dtype=targets.dtype)
    return (targets.unsqueeze(1) == classes.view(1, -1, *[1] * (targets.dim() - 1))).to(outputs.dtype)


def patients_dice(study: StudySpec, outputs: Iterable[Tensor], patients: PreparedPatients) -> NDArray[np.float64]:
    """Return each patient's Dice coefficient of each class but the background. Shapes: result (patient, class - 1)."""
    owners = np.repeat(np.arange(patients.patients), np.diff(patients.first_image))
    sums = np.zeros((3, patients.patients, len(study.label.classes) - 1), np.int64)  # both, predicted, drawn
    start = 0
    for some in outputs:
        numbers = np.arange(start, start + len(some))
        start += len(some)
        found = some.argmax(1).cpu().numpy()  # weights that give no number give some class, and nothing fails
        drawn = patients.targets_of(numbers)
        for total, pixels in zip(sums, _pixels(found, drawn, sums.shape[2]), strict=True):
            np.add.at(total, owners[numbers], pixels)
    both, predicted, drawn_pixels = sums
    either = predicted + drawn_pixels
    return np.where(either == 0, 1.0, 2.0 * both / np.maximum(either, 1))


def _pixels(found: NDArray[np.int64], drawn: NDArray[np.float32], classes: int) -> NDArray[np.int64]:
    """Count pixels of each class. Shapes: found, drawn (image, *size); result (both | found | drawn, image, class)."""
    axes = tuple(range(1, found.ndim))
    counts = []
    for number in range(1, classes + 1):
        is_found, is_drawn = found == number, drawn == number
        counts.append([(is_found & is_drawn).sum(axes), is_found.sum(axes), is_drawn.sum(axes)])
    return np.array(counts, np.int64).transpose(1, 2, 0)


def _counts(
    study: StudySpec, outputs: Iterable[Tensor], patients: PreparedPatients, noise: NoiseSource
) -> list[ValueHistogram]:
    return noised_values(study, patients_dice(study, outputs, patients), noise)


def segmentation(study: StudySpec) -> Objective:
    """Return what a segmentation study trains and counts."""
    return Objective(
        outputs=len(study.label.classes),
        targets=_targets,
        loss=segmentation_loss,
        counts=_counts,
        of_nobody=values_of_nobody,
    )
