"""What training minimises at a site. The strategy's own terms (such as FedProx's) will stand beside the loss here."""

import torch
from torch import Tensor

from protocol.study import StudySpec
from site_node.privacy.clipping import Loss


def loss_of(study: StudySpec) -> Loss:
    """Return the loss of a study: logits (image,), targets (image,) -> losses (image,), not reduced.

    Raises: KeyError for a kind of study that has no loss, which `StudySpec` does not let through.
    """
    return {"classification": cross_entropy}[study.kind]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross entropy of each image. No class weights: they would tell the label balance."""
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
