"""Networks that give each pixel a logit for each class: MONAI's UNet, SegResNet and SwinUNETR, in sizes of a study.

Like all networks here they are built with BatchNorm and converted (`networks.py`). SwinUNETR's transformer keeps its
LayerNorms, which normalise each token by itself, whatever `network.normalisation` says.
UNet's transposed convolutions and SwinUNETR's position biases are no layers that `privacy/layerwise.py` knows: their
patients' gradients are taken image by image, which holds images x parameters at a time.
"""

from typing import Annotated, Literal

import torch
from monai.networks.nets import SegResNet, SwinUNETR, UNet
from pydantic import Field, model_validator
from torch import nn

from site_node.training.network_sizes import Channels, Kernel, Sizes, Stride

Blocks = Annotated[int, Field(ge=1, le=16)]


class UnetSizes(Sizes):
    """monai.networks.nets.UNet; an edge of the image must be divisible by the product of the strides."""

    channels: list[Channels] = Field(default=[8, 16, 32, 64], min_length=2, max_length=8)
    strides: list[Stride] = Field(default=[2, 2, 2], min_length=1, max_length=7)
    kernel: Kernel = 3
    residual_units: int = Field(default=0, ge=0, le=4)
    activation: Literal["relu", "prelu"] = "relu"

    @model_validator(mode="after")
    def _one_stride_between_two(self) -> "UnetSizes":
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError("strides must be one fewer than channels: each lies between two of them")
        if self.kernel % 2 == 0:
            raise ValueError("kernel must be odd")
        return self


class SegresnetSizes(Sizes):
    """monai.networks.nets.SegResNet; an edge must be divisible by 2 for each level after the first."""

    init_filters: Channels = 8
    blocks_down: list[Blocks] = Field(default=[1, 1, 1], min_length=2, max_length=6)
    blocks_up: list[Blocks] = Field(default=[1, 1], min_length=1, max_length=5)

    @model_validator(mode="after")
    def _as_many_up_as_down(self) -> "SegresnetSizes":
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError("blocks_up must be one fewer than blocks_down")
        return self


class SwinunetrSizes(Sizes):
    """monai.networks.nets.SwinUNETR; an edge must be divisible by 32, and feature_size by 12."""

    feature_size: int = Field(default=12, ge=12, le=48, multiple_of=12)
    depths: list[Literal[1, 2, 4, 6, 8]] = Field(default=[1, 1, 1, 1], min_length=4, max_length=4)
    heads: list[Annotated[int, Field(ge=1, le=48)]] = Field(default=[1, 2, 4, 8], min_length=4, max_length=4)
    window: int = Field(default=4, ge=2, le=16)

    @model_validator(mode="after")
    def _heads_divide(self) -> "SwinunetrSizes":
        if any((self.feature_size << level) % heads for level, heads in enumerate(self.heads)):
            raise ValueError("heads must divide feature_size, doubled at each level")
        return self


def unet(sizes: UnetSizes, dimensions: int, classes: int) -> nn.Module:
    """Return a UNet; see `networks.build_network`."""
    network: nn.Module = UNet(
        dimensions, 1, classes, sizes.channels, sizes.strides, kernel_size=sizes.kernel, up_kernel_size=sizes.kernel,
        num_res_units=sizes.residual_units, act=sizes.activation, norm="batch",
    )  # fmt: skip
    return network


def segresnet(sizes: SegresnetSizes, dimensions: int, classes: int) -> nn.Module:
    """Return a SegResNet; see `networks.build_network`."""
    network: nn.Module = SegResNet(
        dimensions, sizes.init_filters, 1, classes, act="relu", norm="batch",
        blocks_down=tuple(sizes.blocks_down), blocks_up=tuple(sizes.blocks_up),
    )  # fmt: skip
    return network


def swinunetr(sizes: SwinunetrSizes, dimensions: int, classes: int) -> nn.Module:
    """Return a SwinUNETR; see `networks.build_network`."""
    shown = torch.get_default_device()
    with torch.device("cpu"):  # MONAI reads numbers out of tensors on the way, which shapes without values do not have
        network: nn.Module = SwinUNETR(
            1, classes, depths=sizes.depths, num_heads=sizes.heads, window_size=sizes.window,
            feature_size=sizes.feature_size, norm_name="batch", spatial_dims=dimensions,
        )  # fmt: skip
    return network.to(shown)
