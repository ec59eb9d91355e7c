"""Patients' gradients layer by layer: one forward and one backward pass for all images, no gradient of a single one.

Each layer with parameters is watched: its input on the way forward, its output's gradient on the way back. From the two
follow the lengths of the patients' gradients at once and, when all layers' lengths are known, their clipped sum
(`layer_shares.py`). Autograd itself makes no parameter's gradient: the two products with a layer's input that are left
out there are the ones made here.

Needs a network whose images do not mix (`build_network` refuses BatchNorm under DP) and whose layers are each called
once; `covers` says whether the kinds of its layers are known here.

Sources: Goodfellow, arXiv:1510.01799; Bu et al., arXiv:2210.00038.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from site_node.privacy.kernel_gradients import Convolution, Kernel
from site_node.privacy.layer_shares import Held, Share, share_of_weight
from site_node.privacy.patient_batch import Loss, PatientBatch

VALUES_ADDED_AT_ONCE = 1 << 16


class LayerwiseGradients:
    """The gradients of a batch's patients, each the mean over the patient's images.

    Shapes: squares (patient,) float64, the squared lengths over all parameters; not finite where a gradient is not.
    """

    def __init__(self, network: nn.Module, loss: Loss, batch: PatientBatch) -> None:
        """Run the network forward and backward once. Raises: ValueError if a layer is called twice."""
        self._parameters = list(network.parameters())
        self._shares: dict[Tensor, Share] = _shares(network, loss, batch)
        self.squares = sum(
            (share.squares for share in self._shares.values()),
            start=torch.zeros(batch.patients, dtype=torch.float64, device=batch.images.device),
        )

    def add_weighted_sum(self, factors: Tensor, total: Tensor) -> None:
        """Add the patients' gradients, each times its factor; those of factor 0 are left out. May be called once.

        Shapes: factors (patient,) float64; total (parameter,) float64, in the order of `network.parameters()`.
        """
        usable = factors > 0
        chosen = None if bool(usable.all()) else usable
        start = 0
        for parameter in self._parameters:
            share = self._shares.pop(parameter, None)  # frees the layer's maps before the next layer's sum
            place = total[start : start + parameter.numel()]
            start += parameter.numel()
            if share is not None:
                _add(share.weighted_sum(factors.to(parameter.dtype), chosen), place)


def covers(network: nn.Module) -> bool:
    """Return whether every layer with parameters is of a kind known here, and none mixes the images of a batch."""
    modules = list(network.modules())
    owned = [parameter for module in modules for parameter in module.parameters(recurse=False)]
    return len(owned) == len(set(owned)) and all(map(_known, modules))


def _known(module: nn.Module) -> bool:
    if isinstance(module, _BatchNorm):
        return False
    if isinstance(module, Convolution):
        plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return type(module) in _RULES and plain
    return type(module) in _RULES or not any(True for _ in module.parameters(recurse=False))


def _shares(network: nn.Module, loss: Loss, batch: PatientBatch) -> dict[Tensor, Share]:
    shares: dict[Tensor, Share] = {}
    first_outputs: list[Tensor] = []
    called: set[nn.Module] = set()

    def watch(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if layer in called:
            raise ValueError("Expected each layer to be called once. Take the gradients image by image instead.")
        called.add(layer)
        maps = inputs[0].detach()
        version = maps._version
        if not output.requires_grad:  # nothing before it needs a gradient: backward ends here
            first_outputs.append(output.requires_grad_())

        def book(gradient: Tensor) -> None:
            if maps._version != version:
                raise ValueError("Expected a layer's input to stay as it was. Turn in-place modules off.")
            with torch.no_grad():
                own = _RULES[type(layer)](layer, _single(maps), _single(gradient), batch)
            shares.update(zip(layer.parameters(recurse=False), own, strict=True))

        output.register_hook(book)  # type: ignore[no-untyped-call]

    with _without_own_gradients(network), torch.enable_grad(), ExitStack() as hooks:
        for module in network.modules():
            if type(module) in _RULES:
                hooks.callback(module.register_forward_hook(watch).remove)
        weights = torch.repeat_interleave(batch.counts.to(batch.images.dtype).reciprocal(), batch.counts)
        objective = (loss(network(batch.images), batch.targets) * weights).sum()
        torch.autograd.grad(objective, first_outputs, allow_unused=True)
    return shares


def _single(values: Tensor) -> Tensor:
    """Return what a layer computed in half precision as float32: lengths and sums are made of the same numbers."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


@contextmanager
def _without_own_gradients(network: nn.Module) -> Iterator[None]:
    """Keep autograd from making the parameters' gradients, and from keeping what it would need for them."""
    wanted = {parameter: parameter.requires_grad for parameter in network.parameters()}
    try:
        network.requires_grad_(False)
        yield
    finally:
        for parameter, value in wanted.items():
            parameter.requires_grad_(value)


def _add(values: Tensor, place: Tensor) -> None:
    # In blocks that a core's cache holds: float32 added to float64 as a whole is five times slower.
    for first in range(0, values.numel(), VALUES_ADDED_AT_ONCE):
        some = slice(first, first + VALUES_ADDED_AT_ONCE)
        place[some] += values[some].double()


def _of_convolution(layer: Convolution, inputs: Tensor, gradients: Tensor, batch: PatientBatch) -> list[Share]:
    shares = [share_of_weight(Kernel.of(layer), inputs, gradients, batch)]
    return shares if layer.bias is None else [*shares, _of_offset(gradients, batch)]


def _of_linear(layer: nn.Linear, inputs: Tensor, gradients: Tensor, batch: PatientBatch) -> list[Share]:
    # (image, *positions, channel) -> (image, channel, position)
    inputs, gradients = (m.reshape(len(m), -1, m.shape[-1]).transpose(1, 2) for m in (inputs, gradients))
    shares = [share_of_weight(Kernel.of_linear(layer), inputs, gradients, batch)]
    return shares if layer.bias is None else [*shares, _of_offset(gradients, batch)]


def _of_group_norm(layer: nn.GroupNorm, inputs: Tensor, gradients: Tensor, batch: PatientBatch) -> list[Share]:
    if not layer.affine:
        return []
    normalised = functional.group_norm(inputs, layer.num_groups, eps=layer.eps)
    return [_of_offset(normalised.mul_(gradients), batch), _of_offset(gradients, batch)]


def _of_offset(gradients: Tensor, batch: PatientBatch) -> Share:
    """Return the share of a value added to a whole channel. Shapes: gradients (image, channel, *size)."""
    return Held.of(batch.sum_of_each(gradients.flatten(2).sum(2) if gradients.dim() > 2 else gradients))


_Rule = Callable[..., Sequence[Share]]
_RULES: Mapping[type[nn.Module], _Rule] = {
    nn.Conv1d: _of_convolution,
    nn.Conv2d: _of_convolution,
    nn.Conv3d: _of_convolution,
    nn.Linear: _of_linear,
    nn.GroupNorm: _of_group_norm,
}
"""Layer -> the shares of its parameters, in the order of `layer.parameters()`."""
