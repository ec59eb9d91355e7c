from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from site_node.privacy.kernel_gradients import (
    Kernel,
    gradients_of_run,
    products_are_cheaper,
    squares_from_products,
    squares_of,
)
from site_node.privacy.patient_batch import Run

CONVOLUTIONS: dict[int, type[Any]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@dataclass(frozen=True)
class Case:
    """A convolution, what went in, what came back, and the patients' gradients as autograd makes them."""

    kernel: Kernel
    inputs: Tensor
    gradients: Tensor
    run: Run
    expected: Tensor


def make_case(
    layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, inputs: Tensor, run: Run, gradients: Tensor | None = None
) -> Case:
    layer = layer.to(inputs.dtype)
    outputs = layer(inputs)
    if gradients is None:
        gradients = torch.randn_like(outputs)
    expected = []
    for patient in range(run.patients):
        images = slice(run.first_image + patient * run.images_each, run.first_image + (patient + 1) * run.images_each)
        product = (layer(inputs[images]) * gradients[images]).sum()
        expected.append(torch.autograd.grad(product, layer.weight)[0])
    return Case(Kernel.of(layer), inputs, gradients, run, torch.stack(expected))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    dimensions = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 2))
    cells, stride, padding, dilation, size = (
        [draw(st.integers(least, most)) for _ in range(dimensions)]
        for least, most in ((1, 3), (1, 3), (0, 2), (1, 2), (1, 5))
    )
    reach = zip(size, padding, dilation, cells, strict=True)
    assume(all(s + 2 * p > d * (c - 1) for s, p, d, c in reach))
    torch.manual_seed(draw(st.integers(0, 1000)))
    geometry: Any = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    channels = [groups * draw(st.integers(1, 3)) for _ in range(2)]
    layer = CONVOLUTIONS[dimensions](*channels, cells, **geometry)
    run = Run(draw(st.integers(0, 2)), draw(st.integers(1, 4)), draw(st.integers(0, 3)), draw(st.integers(1, 3)))
    images = run.first_image + run.patients * run.images_each + 1
    return make_case(layer, torch.randn(images, layer.in_channels, *size, dtype=torch.float64), run)


@settings(max_examples=80, deadline=None)
@given(case=cases())
def test_the_gradients_of_a_run_are_those_of_autograd(case: Case) -> None:
    made = torch.cat(list(gradients_of_run(case.kernel, case.inputs, case.gradients, case.run)))
    assert torch.allclose(made, case.expected, atol=1e-9)


@settings(max_examples=80, deadline=None)
@given(case=cases())
def test_products_of_positions_give_the_lengths_of_the_gradients(case: Case) -> None:
    assume(case.kernel.groups == 1)
    lengths = squares_from_products(case.kernel, case.inputs, case.gradients, case.run)
    most = case.inputs.norm() * case.gradients.norm() * case.kernel.weight[0, 0].numel()
    assert torch.allclose(lengths, squares_of(case.expected), rtol=1e-9, atol=2.0**-22 * float(most) ** 2)
    assert (lengths >= squares_of(case.expected) * (1 - 1e-9)).all()


@pytest.mark.parametrize("apart", [0.0, 1e-6, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize(("channels", "size"), [(512, 1), (256, 2), (128, 6)])
def test_lengths_are_never_too_small_where_positions_cancel(channels: int, size: int, apart: float) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 32, 3, padding=1)
    inputs = torch.rand(32, channels, size, size)
    inputs[1::2] = inputs[::2] * (1 + apart * torch.randn_like(inputs[::2]))
    outputs = torch.rand(32, 32, size, size)
    outputs[1::2] = -outputs[::2]
    run = Run(0, 16, 0, 2)
    true = squares_of(make_case(layer, inputs.double(), run, outputs.double()).expected)
    found = squares_from_products(make_case(layer, inputs, run, outputs).kernel, inputs, outputs, run)
    assert (found >= true * (1 - 1e-5)).all()


def test_few_positions_with_many_channels_are_multiplied_and_many_with_few_are_not() -> None:
    run = Run(0, 4, 0, 1)
    deep, shallow = Kernel.of(nn.Conv2d(256, 256, 3, padding=1)), Kernel.of(nn.Conv2d(1, 16, 5, padding=2))
    assert products_are_cheaper(deep, torch.empty(4, 256, 4, 4), torch.empty(4, 256, 4, 4), run)
    assert not products_are_cheaper(shallow, torch.empty(4, 1, 64, 64), torch.empty(4, 16, 64, 64), run)
    many_images = Run(0, 1, 0, 500)
    assert not products_are_cheaper(deep, torch.empty(500, 256, 4, 4), torch.empty(500, 256, 4, 4), many_images)


def test_large_inputs_of_one_channel_are_taken_patient_by_patient() -> None:
    torch.manual_seed(0)
    run = Run(0, 3, 0, 2)
    case = make_case(nn.Conv2d(1, 64, 7, padding=3), torch.randn(6, 1, 20, 20, dtype=torch.float64), run)
    parts = list(gradients_of_run(case.kernel, case.inputs, case.gradients, run))
    assert [len(part) for part in parts] == [1, 1, 1]
    assert torch.allclose(torch.cat(parts), case.expected)
