"""The gradients of a convolution's weight, patient by patient, and their lengths.

Two ways to the squared lengths:

- Make the gradients: one convolution with a group for each patient. Cost: positions x weights.
- Multiply positions: the gradient is sum_t g_t x_t^T over the output's positions t of a patient's images, where g_t is
  the output's gradient there and x_t the patch below it, so its squared length is sum_ts <x_t, x_s> <g_t, g_s>
  (Goodfellow 2015). Cost: positions^2 x channels, far less for the deep layers, which have many channels and few
  positions. <x_t, x_s> is a sum over the kernel's cells, that is along the diagonals of the products of single cells:
  patches are never made.

Guarantee: no length is underestimated beyond float32 rounding. Where positions cancel, the rounding of the products can
be as large as the squared length itself; `SLACK` adds more than that, so that a patient is clipped a little too much
and never too little.

A linear layer is a convolution with a kernel of one cell.

Sources: Goodfellow, "Efficient per-example gradient computations", arXiv:1510.01799; Bu et al., "Scalable and
efficient training of large convolutional neural networks with differential privacy", arXiv:2205.10683.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from site_node.privacy.patient_batch import Run

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d

SLACK = 2.0**-22
"""What is added to a squared length, relative to (sum_t |x_t| |g_t|)^2: four units in the last place of a product."""
VALUES_AT_ONCE = 1 << 18
"""Gradients or products made at a time: 1 MiB of float32, which a core's own cache holds."""
DIAGONAL_COST = 60
"""What adding up the diagonals costs for each product, in multiply-adds of a matrix product; measured on one core."""
ALONE_FROM = 500_000
"""Multiply-adds for each patient from which an input of one channel is faster patient by patient; measured likewise."""


@dataclass(frozen=True)
class Kernel:
    """A convolution's weight and geometry. Shapes: weight (channel out, channel in of a group, *cells)."""

    weight: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, layer: Convolution) -> "Kernel":
        """Return a convolution layer's kernel."""
        padding = tuple(int(cells) for cells in layer.padding)
        return cls(layer.weight.detach(), layer.stride, padding, layer.dilation, layer.groups)

    @classmethod
    def of_linear(cls, layer: nn.Linear) -> "Kernel":
        """Return a linear layer's kernel, for maps (image, channel, position)."""
        return cls(layer.weight.detach().unsqueeze(2), (1,), (0,), (1,), 1)

    @property
    def one_cell(self) -> bool:
        """Return whether each position of the output sees one position of the input."""
        return math.prod(self.weight.shape[2:]) == 1 and not any(self.padding)

    @property
    def pointwise(self) -> bool:
        """Return whether the convolution is one matrix product."""
        return self.one_cell and self.groups == 1 and all(stride == 1 for stride in self.stride)

    def gradient(self, inputs: Tensor, gradients: Tensor, patients: int = 1) -> Tensor:
        """Return the weight's gradient, summed over images.

        Shapes: inputs and gradients (image, channel of all patients, *size), the patients' channels side by side;
            result (channel out of all patients, channel in of a group, *cells).
        """
        # Of the weight only the shape matters, but it would be copied if it were not contiguous.
        weight = self.weight
        if patients > 1:
            weight = weight.new_empty((patients * weight.shape[0], *weight.shape[1:]))
        _, gradient, _ = torch.ops.aten.convolution_backward(
            gradients, inputs, weight, None, self.stride, self.padding, self.dilation, False,
            [0] * len(self.stride), self.groups * patients, [False, True, False],
        )  # fmt: skip
        made: Tensor = gradient
        return made


def gradients_of_run(kernel: Kernel, inputs: Tensor, gradients: Tensor, run: Run) -> Iterator[Tensor]:
    """Yield the gradients of a run's patients, some patients at a time.

    Shapes: inputs, gradients (image of the batch, channel, *size); each (patient, *weight).
    """
    at_once = max(1, VALUES_AT_ONCE // kernel.weight.numel())
    if kernel.pointwise:
        for part in run.parts(at_once):
            columns = _columns(part.images_of(inputs))
            made = torch.bmm(_columns(part.images_of(gradients)), columns.transpose(1, 2))
            yield made.view(part.patients, *kernel.weight.shape)
        return
    if inputs.shape[1] == 1 and run.images_each * _cost_of_gradient(kernel, gradients) >= ALONE_FROM:
        at_once = 1
    for part in run.parts(at_once):
        # (patient, image, channel) -> (image, patient x channel)
        maps, outputs = (part.images_of(m).transpose(0, 1).flatten(1, 2) for m in (inputs, gradients))
        yield kernel.gradient(maps, outputs, part.patients).view(part.patients, *kernel.weight.shape)


def products_are_cheaper(kernel: Kernel, inputs: Tensor, gradients: Tensor, run: Run) -> bool:
    """Return whether multiplying positions costs less than making the gradients of a run."""
    if kernel.groups > 1:
        return False
    before, after = inputs.shape[2:].numel(), gradients.shape[2:].numel()
    padded = math.prod(s + 2 * p for s, p in zip(inputs.shape[2:], kernel.padding, strict=True))
    if kernel.one_cell:
        before, padded = after, 0
    products = before**2 * inputs.shape[1] + after**2 * gradients.shape[1] + DIAGONAL_COST * padded**2
    return run.images_each * products < _cost_of_gradient(kernel, gradients)


def squares_from_products(kernel: Kernel, inputs: Tensor, gradients: Tensor, run: Run) -> Tensor:
    """Return the squared lengths of the gradients of a run's patients, never too small.

    Shapes: inputs, gradients (image of the batch, channel, *size); result (patient,) float64.
    """
    if kernel.one_cell:
        for axis, stride in enumerate(kernel.stride, start=2):
            inputs = inputs[(slice(None),) * axis + (slice(None, None, stride),)]
    padded = math.prod(s + 2 * p for s, p in zip(inputs.shape[2:], kernel.padding, strict=True))
    at_once = max(1, VALUES_AT_ONCE // (run.images_each * padded) ** 2)
    return torch.cat([_squares(kernel, p.images_of(inputs), p.images_of(gradients)) for p in run.parts(at_once)])


def squares_of(gradients: Tensor) -> Tensor:
    """Return squared lengths. Shapes: gradients (patient, ...); result (patient,) float64."""
    rows = gradients.reshape(gradients.shape[0], gradients.shape[1], -1)
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=2)  # short float32 sums, then float64
    return lengths.double().square().sum(1)


def _cost_of_gradient(kernel: Kernel, gradients: Tensor) -> int:
    """Return the multiply-adds of one image's gradient."""
    return gradients.shape[2:].numel() * kernel.weight.numel()


def _squares(kernel: Kernel, inputs: Tensor, gradients: Tensor) -> Tensor:
    """Shapes: inputs, gradients (patient, image, channel, *size); result (patient,) float64."""
    below, above = _products(inputs), _products(gradients)
    if not kernel.one_cell:
        below = _summed_along_diagonals(below, kernel, inputs.shape[1], inputs.shape[3:])
    lengths = (below.diagonal(dim1=1, dim2=2) * above.diagonal(dim1=1, dim2=2)).sqrt().sum(1).double()
    squares: Tensor = below.mul_(above).sum((1, 2)).double().clamp(min=0.0)
    return squares + SLACK * lengths.square()


def _products(maps: Tensor) -> Tensor:
    """Shapes: maps (patient, image, channel, *size); result (patient, position, position), over all their images."""
    columns = _columns(maps)
    return torch.bmm(columns.transpose(1, 2), columns)


def _columns(maps: Tensor) -> Tensor:
    """Shapes: maps (patient, image, channel, *size); result (patient, channel, position), over all their images."""
    return maps.transpose(1, 2).flatten(2)


def _summed_along_diagonals(products: Tensor, kernel: Kernel, images: int, size: torch.Size) -> Tensor:
    """Turn products of single cells into products of patches, one axis after the other.

    Shapes: products (patient, cell, cell) of all images; result (patient, position, position).
    """
    axes = len(size)
    table = products.view(-1, images, *size, images, *size)
    for axis in range(axes):
        row, column = 2 + axis, 3 + axes + axis
        cells, padding, dilation = kernel.weight.shape[2 + axis], kernel.padding[axis], kernel.dilation[axis]
        positions = (size[axis] + 2 * padding - dilation * (cells - 1) - 1) // kernel.stride[axis] + 1
        table = _padded(table, (row, column), padding)
        reach = (positions - 1) * kernel.stride[axis] + 1
        shifted = []
        for first in range(0, cells * dilation, dilation):
            index: list[slice] = [slice(None)] * table.dim()
            index[row] = index[column] = slice(first, first + reach, kernel.stride[axis])
            shifted.append(table[tuple(index)])
        table = sum(shifted[1:], start=shifted[0])
    side = images * table.shape[2 : 2 + axes].numel()
    result: Tensor = table.reshape(-1, side, side)
    return result


def _padded(table: Tensor, dimensions: tuple[int, int], padding: int) -> Tensor:
    if not padding:
        return table
    widths = [0] * (2 * table.dim())
    for dimension in dimensions:
        last = 2 * (table.dim() - 1 - dimension)  # torch counts the dimensions from the last
        widths[last] = widths[last + 1] = padding
    return functional.pad(table, widths)
