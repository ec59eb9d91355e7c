"""Patients' gradients from those of single images, which torch.func makes for any network: vmap over the images.

Holds images x parameters at a time. It is what stays for networks whose layers `layerwise.py` does not know.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from site_node.privacy.patient_batch import Loss, PatientBatch

Gradients = Mapping[str, Tensor]
"""Parameter name -> (image or patient, *shape) float32."""


class HeldGradients:
    """Gradients of patients, all in memory. Shapes: squares (patient,) float64, the squared lengths."""

    def __init__(self, gradients: Gradients) -> None:
        """Hold gradients. Shapes: gradients name -> (patient, *shape)."""
        self._gradients = gradients
        rows = [gradient.reshape(len(gradient), -1) for gradient in gradients.values()]
        lengths = [torch.linalg.vector_norm(row, dim=1, dtype=torch.float64) for row in rows]
        self.squares = torch.stack(lengths).square().sum(0)

    @classmethod
    def of(cls, network: nn.Module, loss: Loss, batch: PatientBatch) -> "HeldGradients":
        """Take the gradients of a batch's patients, each the mean over the patient's images."""
        parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
        gradients = _image_gradients(network, loss)(parameters, batch.images, batch.targets)
        return cls(_mean_per_patient(gradients, batch))

    def add_weighted_sum(self, factors: Tensor, total: Tensor) -> None:
        """Add the patients' gradients, each times its factor; those of factor 0 are left out.

        Shapes: factors (patient,) float64; total (parameter,) float64, in the order of the mapping.
        """
        usable = factors > 0
        everyone = bool(usable.all())
        start = 0
        for gradient in self._gradients.values():
            row = gradient.reshape(len(gradient), -1)
            part = factors[usable].to(row.dtype) @ (row if everyone else row[usable])
            total[start : start + part.numel()] += part
            start += part.numel()


def _image_gradients(network: nn.Module, loss: Loss) -> Callable[[Gradients, Tensor, Tensor], dict[str, Tensor]]:
    def loss_of_image(parameters: Gradients, image: Tensor, target: Tensor) -> Tensor:
        outputs = functional_call(network, dict(parameters), (image.unsqueeze(0),))
        return loss(outputs, target.unsqueeze(0)).sum()

    return vmap(grad(loss_of_image), in_dims=(None, 0, 0))


def _mean_per_patient(gradients: dict[str, Tensor], batch: PatientBatch) -> dict[str, Tensor]:
    result = {}
    for name in list(gradients):
        sums = batch.sum_of_each(gradients.pop(name))  # frees the images' gradients of one tensor before the next
        result[name] = sums / batch.counts.view(-1, *[1] * (sums.dim() - 1))
    return result
