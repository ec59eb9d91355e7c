"""The permitted networks: MONAI's, in sizes that a study chooses, with a normalisation that keeps patients apart.

No BatchNorm under differential privacy: it normalises an image with the mean and variance of its batch, so that the
gradient of one patient depends on the others, clipping bounds nothing, and its running statistics leave the hospital
un-noised. GroupNorm normalises each image by itself. Without DP a study may ask for it.

Every network is built with BatchNorm and converted, because MONAI does not hand `norm` down everywhere (1.6.1:
`ResNet._make_layer` always makes BatchNorm blocks, whatever the constructor was told). In-place activations are turned
off for torch.func.

Networks map (image, 1, *size) to (image, output), in two and three dimensions; those of segmentation studies to
(image, class, *size) (`segmentation_networks.py`), those of tabular studies (row, feature) to (row, output). How many
outputs there are is the objective's to say (`objectives/`). Sizes are arguments of the study; see `network_sizes.py`,
or `wardround site networks`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from monai.networks.blocks import Convolution
from monai.networks.nets import DenseNet, ResNet
from pydantic import ValidationError
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from protocol.study import StudySpec
from protocol.tensors import Weights
from site_node.errors import BaseUnavailableError, UnknownNetworkError
from site_node.training.classification_networks import EfficientnetSizes, VitSizes, efficientnet, vit
from site_node.training.network_sizes import ConvnetSizes, DensenetSizes, LinearSizes, MlpSizes, ResnetSizes, Sizes
from site_node.training.objectives.choice import objective_of
from site_node.training.segmentation_networks import (
    SegresnetSizes,
    SwinunetrSizes,
    UnetSizes,
    segresnet,
    swinunetr,
    unet,
)

MAX_PARAMETERS = 200_000_000
VOXELS_AT_ONCE = 1 << 19
"""Of volumes in a private step; see `Permitted`."""
OPERATIONS_A_THREAD = 20_000_000
"""Of one image's forward pass."""


class GridAverage(nn.Module):
    """Average an image over a grid of `cells` along each axis; a map of that size passes (adaptive pooling is slow)."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Shapes: (image, channel, *size) -> (image, channel, *cells)."""
        size = maps.shape[2:]
        if all(length == self.cells for length in size):
            return maps
        two = len(size) == 2
        if any(length % self.cells for length in size):
            adaptive = functional.adaptive_avg_pool2d if two else functional.adaptive_avg_pool3d
            return adaptive(maps, self.cells)
        return (functional.avg_pool2d if two else functional.avg_pool3d)(maps, [s // self.cells for s in size])


def _convnet(sizes: ConvnetSizes, dimensions: int, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    before = 1
    for channels, stride, kernel in zip(sizes.channels, sizes.strides, sizes.kernels, strict=True):
        layers.append(
            Convolution(
                dimensions, before, channels, strides=stride, kernel_size=kernel,
                adn_ordering="NA", norm="batch", act="relu", bias=False,
            )
        )  # fmt: skip
        before = channels
    head = nn.Linear(before * sizes.head**dimensions, outputs)
    return nn.Sequential(*layers, GridAverage(sizes.head), nn.Flatten(), head)


def _densenet(sizes: DensenetSizes, dimensions: int, outputs: int) -> nn.Module:
    network: nn.Module = DenseNet(
        dimensions, 1, outputs, init_features=sizes.init_features, growth_rate=sizes.growth_rate,
        block_config=sizes.block_config, bn_size=sizes.bn_size,
    )  # fmt: skip
    return network


def _resnet(sizes: ResnetSizes, dimensions: int, outputs: int) -> nn.Module:
    network: nn.Module = ResNet(
        sizes.block, sizes.layers, sizes.planes, spatial_dims=dimensions, n_input_channels=1, num_classes=outputs,
        conv1_t_size=sizes.first_kernel, conv1_t_stride=sizes.first_stride, no_max_pool=not sizes.max_pool,
        bias_downsample=False,
    )  # fmt: skip
    return network


def _linear(sizes: LinearSizes, columns: int, outputs: int) -> nn.Module:
    return nn.Linear(columns, outputs)


def _mlp(sizes: MlpSizes, columns: int, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width, before in zip(sizes.hidden, [columns, *sizes.hidden], strict=False):
        layers += [nn.Linear(before, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes.hidden[-1], outputs))


@dataclass(frozen=True)
class Permitted:
    """A network that a study may name.

    `reads`: images, or the rows of a table. `gives`: outputs for the whole image, or for each pixel. `build` is given
    the sizes, how many axes an image has (`needs_size`: its size) or how many columns a table, and the number of
    outputs. `pixels_at_once`: how
    many pixels of flat images (values of rows) a private step takes forward and back together. More is faster for small
    ones; for resnet, whose large sizes lose nothing by it, fewer keep the memory at that of a plain step; networks that
    give masks hold images x parameters. Measured in docs/decisions/0015.
    """

    sizes: type[Sizes]
    build: Callable[..., nn.Module]
    pixels_at_once: int
    reads: Literal["images", "rows"] = "images"
    gives: Literal["outputs", "masks"] = "outputs"
    needs_size: bool = False


PERMITTED: Mapping[str, Permitted] = {
    "convnet": Permitted(ConvnetSizes, _convnet, pixels_at_once=1 << 19),
    "densenet": Permitted(DensenetSizes, _densenet, pixels_at_once=1 << 19),
    "resnet": Permitted(ResnetSizes, _resnet, pixels_at_once=1 << 17),
    "efficientnet": Permitted(EfficientnetSizes, efficientnet, pixels_at_once=1 << 17, needs_size=True),
    "vit": Permitted(VitSizes, vit, pixels_at_once=1 << 16, needs_size=True),
    "linear": Permitted(LinearSizes, _linear, pixels_at_once=1 << 19, reads="rows"),
    "mlp": Permitted(MlpSizes, _mlp, pixels_at_once=1 << 19, reads="rows"),
    "unet": Permitted(UnetSizes, unet, pixels_at_once=1 << 17, gives="masks"),
    "segresnet": Permitted(SegresnetSizes, segresnet, pixels_at_once=1 << 17, gives="masks"),
    "swinunetr": Permitted(SwinunetrSizes, swinunetr, pixels_at_once=1 << 14, gives="masks"),
}


def build_network(study: StudySpec) -> nn.Module:
    """Build a study's network; its values are those of the seed (`initial_weights`).

    Shapes: (image, *input_shape) -> (image, output), of a segmentation study (image, class, *size).
    Guarantee: the same study gives the same values. Under DP no layer mixes the images of a batch.
    Raises: UnknownNetworkError if the name or an argument is not permitted, or the images are too small for it.
    """
    permitted = _permitted(study)
    sizes = _sizes(study, permitted)
    with torch.device("meta"):  # shapes without values: what is too large never takes memory
        _refuse(study, _assembled(study, permitted, sizes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(study.seed)
        return _assembled(study, permitted, sizes)


def images_at_once(study: StudySpec) -> int:
    """Return how many images a private step takes forward and back together; a patient's are never parted."""
    shape, permitted = input_shape(study), _permitted(study)
    volumes = VOXELS_AT_ONCE if permitted.gives == "outputs" else min(VOXELS_AT_ONCE, permitted.pixels_at_once)
    at_once = volumes if len(shape) == 4 else permitted.pixels_at_once
    return max(1, at_once // math.prod(shape))


def input_shape(study: StudySpec) -> tuple[int, ...]:
    """Return what a network sees of one image, (1, *size), or of one row of a table: (feature,)."""
    if study.kind == "tabular":
        return (len(study.table.features),)
    return (1, *study.preprocessing.size)


def threads_worth(study: StudySpec, at_most: int) -> int:
    """Return how many threads a study's steps are given: one for small networks.

    On two quiet cores two threads save a small network a fifth of the time for 1.6 times the work; where others use
    the cores too, threads that wait for each other made it more than ten times slower.

    Raises: UnknownNetworkError as `build_network`.
    """
    permitted = _permitted(study)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        _assembled(study, permitted, _sizes(study, permitted))(torch.empty(1, *input_shape(study)))
    return max(1, min(at_most, round(int(counter.get_total_flops()) / OPERATIONS_A_THREAD)))


def initial_weights(study: StudySpec) -> Weights:
    """Return version 0, the same at every site.

    Raises: UnknownNetworkError as `build_network`.
    """
    return weights_of(build_network(study))


def weights_of(network: nn.Module) -> Weights:
    """Return copies of the network's parameters and floating-point buffers, by name."""
    state = network.state_dict()
    return {
        name: np.array(tensor.detach().cpu().numpy(), np.float32)
        for name, tensor in sorted(state.items())
        if tensor.is_floating_point()
    }


def load_into(network: nn.Module, weights: Weights) -> None:
    """Set a network's values.

    Raises: BaseUnavailableError if names or shapes are not the network's, which says that the version was made for
        another study or by another release.
    """
    own = {name: tuple(t.shape) for name, t in network.state_dict().items() if t.is_floating_point()}
    if own != {name: tuple(array.shape) for name, array in weights.items()}:
        raise BaseUnavailableError(
            "The version's tensors are not those of the study's network.",
            "Do hub and site run the same release of Wardround and MONAI?",
        )
    network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()}, strict=False)


def _permitted(study: StudySpec) -> Permitted:
    name, reads = study.network.name, "rows" if study.kind == "tabular" else "images"
    gives = "masks" if study.kind == "segmentation" else "outputs"
    permitted = PERMITTED.get(name)
    fitting = ", ".join(known for known, net in PERMITTED.items() if (net.reads, net.gives) == (reads, gives))
    if permitted is None:
        raise UnknownNetworkError(f"The network {name!r} is not permitted.", f"Choose one of: {fitting}.")
    if permitted.reads != reads:
        raise UnknownNetworkError(
            f"The network {name!r} reads {permitted.reads}, and the study has {reads}.", f"Choose one of: {fitting}."
        )
    if permitted.gives != gives:
        raise UnknownNetworkError(
            f"The network {name!r} gives {permitted.gives}, and the study wants {gives}.", f"Choose one of: {fitting}."
        )
    return permitted


def _sizes(study: StudySpec, permitted: Permitted) -> Sizes:
    try:
        return permitted.sizes.model_validate(study.network.arguments)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'together'}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)
        )
        known = ", ".join(permitted.sizes.model_fields)
        raise UnknownNetworkError(
            f"The arguments of {study.network.name!r} are not permitted: {faults}.", f"Known arguments: {known}."
        ) from None


def _assembled(study: StudySpec, permitted: Permitted, sizes: Sizes) -> nn.Module:
    size = study.preprocessing.size
    axes: int | list[int] = len(study.table.features) if permitted.reads == "rows" else len(size)
    try:
        network = permitted.build(sizes, size if permitted.needs_size else axes, objective_of(study).outputs)
    except ValueError as error:
        raise UnknownNetworkError(
            f"The network {study.network.name!r} cannot be built for images of {size}: {error}.",
            "Change preprocessing.size or network.arguments.",
        ) from None
    _normalise(network, study.network.normalisation, sizes.groups)
    for module in network.modules():
        if hasattr(module, "inplace"):
            object.__setattr__(module, "inplace", False)
    return network


def _normalise(network: nn.Module, kind: str, groups: int) -> None:
    if kind == "batch":
        return
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, _layer(kind, child.num_features, groups))


def _layer(kind: str, channels: int, groups: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    number = {"group": math.gcd(groups, channels), "instance": channels, "layer": 1}[kind]
    return nn.GroupNorm(number, channels)


def _refuse(study: StudySpec, network: nn.Module) -> None:
    if study.privacy.epsilon is not None and any(isinstance(m, _BatchNorm) for m in network.modules()):
        raise UnknownNetworkError(
            "BatchNorm mixes the patients of a batch, so clipping one patient's gradient bounds nothing.",
            "Use network.normalisation: group, or set privacy.epsilon: null.",
        )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > MAX_PARAMETERS:
        raise UnknownNetworkError(
            f"The network has {parameters} parameters; at most {MAX_PARAMETERS} are permitted.", "Choose smaller sizes."
        )
    try:
        given = network.eval()(torch.empty(2, *input_shape(study), device="meta")).shape
    except (RuntimeError, ValueError):
        given = torch.Size()
    expected = (2, objective_of(study).outputs, *(study.preprocessing.size if study.kind == "segmentation" else ()))
    if given != expected:
        raise UnknownNetworkError(
            f"Images of {study.preprocessing.size} are too small for this {study.network.name!r}, or cannot be halved "
            "as often as it does.",
            "Raise preprocessing.size (to a multiple of all strides together), or use fewer layers or strides.",
        )
