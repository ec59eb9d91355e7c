"""What a layer holds of the patients' gradients, from its input and its output's gradient alone.

A share answers two questions about one parameter: how long is each patient's gradient (`squares`), and what is the sum
of the patients' gradients, each times a factor. `Held` has the gradients themselves; `Booked` has input and output
gradient, knows the lengths, and makes the weighted sum as one ordinary weight gradient (book-keeping). Held are only
gradients that take about as much memory as the book entry would: those of the shallow layers, with few weights and
large maps.

Source: Bu et al., "Differentially private optimization on large model at small cost", arXiv:2210.00038.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from site_node.privacy.kernel_gradients import (
    Kernel,
    gradients_of_run,
    products_are_cheaper,
    squares_from_products,
    squares_of,
)
from site_node.privacy.patient_batch import PatientBatch

HELD_FOR_ONE = 2
"""Gradients are held if they have at most so many values for each value of the layer's input and output gradient."""


class Share(Protocol):
    """One parameter's part of the patients' gradients. Shapes: squares (patient,) float64."""

    @property
    def squares(self) -> Tensor:
        """Return the squared lengths of the patients' gradients."""

    def weighted_sum(self, factors: Tensor, usable: Tensor | None) -> Tensor:
        """Return the usable patients' gradients, each times its factor, added up; None stands for all.

        Shapes: factors (patient,); usable (patient,) bool; result (value of the parameter,).
        """


@dataclass(frozen=True)
class Held:
    """The gradients themselves, in parts. Shapes: parts (some patients, *parameter); squares (patient,) float64."""

    parts: Sequence[Tensor]
    squares: Tensor

    @classmethod
    def of(cls, gradients: Tensor) -> "Held":
        """Hold gradients. Shapes: gradients (patient, *parameter)."""
        return cls([gradients], squares_of(gradients))

    def weighted_sum(self, factors: Tensor, usable: Tensor | None) -> Tensor:
        """Return the usable patients' gradients, each times its factor, added up; see `Share`."""
        sums, first = [], 0
        for part in self.parts:
            own = slice(first, first := first + len(part))
            kept = slice(None) if usable is None else usable[own]
            sums.append(factors[own][kept] @ part.flatten(1)[kept])
        return sum(sums[1:], start=sums[0])


@dataclass(frozen=True)
class Booked:
    """What makes the gradients. Shapes: inputs, gradients (image, channel, *size); squares (patient,) float64."""

    kernel: Kernel
    inputs: Tensor
    gradients: Tensor
    owners: Tensor
    squares: Tensor

    def weighted_sum(self, factors: Tensor, usable: Tensor | None) -> Tensor:
        """Return the usable patients' gradients, each times its factor, added up; see `Share`."""
        inputs, gradients, owners = self.inputs, self.gradients, self.owners
        if usable is not None:  # left out, not multiplied with zero: zero times NaN is NaN
            images = usable[owners]
            inputs, gradients, owners = inputs[images], gradients[images], owners[images]
        scaled = gradients * factors[owners].view(-1, *[1] * (gradients.dim() - 1))
        return self.kernel.gradient(inputs, scaled).flatten()


def share_of_weight(kernel: Kernel, inputs: Tensor, gradients: Tensor, batch: PatientBatch) -> Share:
    """Return a convolution's share in the cheaper way.

    Shapes: inputs, gradients (image, channel, *size), the batch's runs side by side.
    """
    multiply = [products_are_cheaper(kernel, inputs, gradients, run) for run in batch.runs]
    if not any(multiply) and batch.patients * kernel.weight.numel() <= HELD_FOR_ONE * (
        inputs.numel() + gradients.numel()
    ):
        parts = [part for run in batch.runs for part in gradients_of_run(kernel, inputs, gradients, run)]
        return Held(parts, torch.cat([squares_of(part) for part in parts]))
    squares = []
    for run, products in zip(batch.runs, multiply, strict=True):
        if products:
            squares.append(squares_from_products(kernel, inputs, gradients, run))
        else:
            squares += [squares_of(part) for part in gradients_of_run(kernel, inputs, gradients, run)]
    return Booked(kernel, inputs, gradients, batch.owners, torch.cat(squares))
