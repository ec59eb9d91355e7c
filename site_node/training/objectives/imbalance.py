"""Rare classes: what an image's loss is multiplied with, from the study's own stated numbers.

`label.weights` are numbers that the study states, and `label.focal` lowers the loss of what the version already tells
apart. Neither reads how many patients of a hospital have a class: weights made of a hospital's own counts would carry
these counts, un-noised, into every gradient. With `label.balance` the worker's order holds weights made of figures that
left noised (`protocol/class_balance.py`), and they stand in place of stated ones.
Source: Lin et al. 2017, arXiv:1708.02002 (focal loss), without its alpha, in whose place the weights stand.
"""

import torch
from torch import Tensor

from protocol.label import Label
from protocol.study import StudySpec
from site_node.privacy.patient_batch import Loss

LEAST = 1e-6
"""Below it the share that is left is taken as this: a power of 0 has no gradient."""


def weighted(label: Label, cross_entropy: Loss) -> Loss:
    """Return the loss of a study whose images have one class each: focused and weighted as its label says."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return focused(label, cross_entropy(outputs, targets)) * class_weights(label, targets)

    return loss


def with_class_weights(study: StudySpec, weights: list[float] | None) -> StudySpec:
    """Return the study as it is trained here: with a work order's weights of its classes, where there are some."""
    if weights is None:
        return study
    return study.model_copy(update={"label": study.label.model_copy(update={"weights": weights})})


def class_weights(label: Label, targets: Tensor) -> Tensor | float:
    """Return the weight of each image's class, 1 where the study states none. Shapes: targets (image,) of numbers."""
    if not label.weights:
        return 1.0
    return targets.new_tensor(label.weights)[targets.long()]


def finding_weights(label: Label, targets: Tensor) -> Tensor | float:
    """Return the weight of each finding of each image, which is 1 where it is absent. Shapes: (image, finding)."""
    if not label.weights:
        return 1.0
    return torch.where(targets > 0, targets.new_tensor(label.weights), 1.0)


def focused(label: Label, losses: Tensor) -> Tensor:
    """Return losses times (1 - p)^focal, with p the probability of what is true: cross entropy is -log p."""
    if not label.focal:
        return losses
    return losses * (-torch.expm1(-losses)).clamp(min=LEAST) ** label.focal
