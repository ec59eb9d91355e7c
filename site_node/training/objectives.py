"""What training minimises at a site. The strategy's own terms (such as FedProx's) will stand beside the loss here."""

import torch
from torch import Tensor

from protocol.study import StudySpec
from site_node.privacy.clipping import Loss
from site_node.training.survival import cox_loss


def loss_of(study: StudySpec) -> Loss:
    """Return the loss of a study: logits (image,), targets (image,) -> losses (image,), not reduced.

    That of a survival study compares patients: it is of a batch as a whole (`survival.py`).
    """
    return cox_loss if study.is_survival else cross_entropy


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross entropy of each image. No class weights: they would tell the label balance."""
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
