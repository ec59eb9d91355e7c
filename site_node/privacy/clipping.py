"""The sum of the patients' gradients, each clipped: the one place where a patient's data meets the model.

A patient's gradient is the mean over the patient's drawn images, so a patient with many images moves the sum no more
than a patient with one. The gradients come layer by layer (`layerwise.py`) where the kinds of a network's layers are
known there, which holds for every permitted network, and else image by image (`per_image.py`); what each costs is in
docs/decisions/0015 and is measured by tests/benchmarks/dp_sgd.py.
Source: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1, with the patient as the unit.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from site_node.privacy import layerwise
from site_node.privacy.layerwise import LayerwiseGradients
from site_node.privacy.patient_batch import Loss as Loss
from site_node.privacy.patient_batch import PatientBatch as PatientBatch
from site_node.privacy.per_image import Gradients, HeldGradients


class PatientGradients(Protocol):
    """The gradients of some patients, however they are kept. Shapes: squares (patient,) float64."""

    squares: Tensor

    def add_weighted_sum(self, factors: Tensor, total: Tensor) -> None:
        """Add the patients' gradients, each times its factor; those of factor 0 are left out.

        Shapes: factors (patient,) float64; total (parameter,) float64.
        """


def clip_factors(squares: Tensor, max_norm: float) -> Tensor:
    """Return what gradients are multiplied with to lie in the L2 ball; 0 for one that is not finite.

    Shapes: squares, the squared lengths, and result (patient,) float64.
    Raises: ValueError if max_norm is not positive.
    """
    if not max_norm > 0:
        raise ValueError("Expected a positive clipping norm.")
    norms = squares.sqrt()
    factors = (max_norm / norms.clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1.0)
    return torch.where(torch.isfinite(norms), factors, 0.0)


def sum_clipped_per_patient(gradients: Gradients, max_norm: float) -> Tensor:
    """Sum the patients' gradients, each first clipped to an L2 ball over all parameters together.

    Shapes: gradients name -> (patient, *shape) float32; result (parameter,) float64, in the order of the mapping.
    Guarantee: adding or removing one patient moves the sum by at most max_norm (L2, up to float32 rounding of the
        products). A patient whose gradient is not finite counts as zero; the run does not stop.
    Raises: ValueError if max_norm is not positive.
    Source: see the module.
    """
    values = [(g[0].numel(), g.device) for g in gradients.values()]
    total = _zeros(sum(number for number, _ in values), values[0][1])
    _add_clipped(HeldGradients(gradients), max_norm, total)
    return total


def clipped_sum_of_batch(
    network: nn.Module, loss: Loss, batch: PatientBatch, max_norm: float, *, images_at_once: int
) -> Tensor:
    """Sum the clipped gradients of a batch's patients.

    Shapes: result (parameter,) float64, parameters in the order of `network.named_parameters()`; zero for an empty
        batch.
    Guarantee: that of `sum_clipped_per_patient`, whatever the patients' numbers of images; independent of
        `images_at_once` and of the order of the patients up to rounding. Deterministic. The network must treat each
        image by itself, as every network that `build_network` makes under DP does.
    Raises: ValueError if max_norm is not positive, or the network calls a layer twice.
    """
    parameters = list(network.parameters())
    total = _zeros(sum(parameter.numel() for parameter in parameters), parameters[0].device)
    layer_by_layer = layerwise.covers(network)
    for chunk in batch.by_count().chunks(images_at_once):
        gradients: PatientGradients = (
            LayerwiseGradients(network, loss, chunk) if layer_by_layer else HeldGradients.of(network, loss, chunk)
        )
        _add_clipped(gradients, max_norm, total)
    return total


def _add_clipped(gradients: PatientGradients, max_norm: float, total: Tensor) -> None:
    gradients.add_weighted_sum(clip_factors(gradients.squares, max_norm), total)


def _zeros(values: int, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(values, dtype=torch.float64, device=device)
    # numpy leaves the memory untouched until it is used, and asks for large pages: a seventh of torch's time.
    return torch.from_numpy(np.zeros(values))
