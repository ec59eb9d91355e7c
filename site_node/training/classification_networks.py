"""MONAI's EfficientNet and ViT for studies of classes, in sizes that a study chooses (see `networks.py`).

EfficientNet: MONAI's "memory-efficient" swish is an autograd function that torch.func cannot differentiate for single
images, so the plain one is set; drop-connect and dropout are off, because they draw from torch's own generator and not
from the task's secret stream. Source: Tan and Le 2019, arXiv:1905.11946.

ViT: its LayerNorms normalise each token by itself and stay, whatever `network.normalisation` says. Each of MONAI's
transformer blocks (1.6.1) also holds a cross-attention that is never called; it is taken out, because a tensor that
no gradient moves would still be noised and sent. Its class token and position embedding are parameters of no layer, so
that patients' gradients are taken image by image (`privacy/per_image.py`). Source: Dosovitskiy et al. 2021,
arXiv:2010.11929.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from monai.networks.nets import EfficientNet, ViT
from pydantic import Field, model_validator
from torch import nn

from site_node.training.network_sizes import Kernel, Sizes, Stride

MOST_TOKENS = 4096
"""Patches of one image: attention compares each with each."""


class EfficientnetSizes(Sizes):
    """monai.networks.nets.EfficientNet: stages of inverted bottlenecks; width and depth scale channels and blocks."""

    width: float = Field(default=1.0, ge=0.1, le=3.0)
    depth: float = Field(default=1.0, ge=0.1, le=4.0)
    channels: list[Annotated[int, Field(ge=8, le=512)]] = Field(default=[16, 24, 40], min_length=1, max_length=7)
    blocks: list[Annotated[int, Field(ge=1, le=16)]] = Field(default=[1, 1, 1], min_length=1, max_length=7)
    kernels: list[Kernel] = Field(default=[3, 3, 5], min_length=1, max_length=7)
    strides: list[Stride] = Field(default=[1, 2, 2], min_length=1, max_length=7)
    expansion: int = Field(default=4, ge=1, le=8)

    @model_validator(mode="after")
    def _same_length(self) -> "EfficientnetSizes":
        if not len(self.channels) == len(self.blocks) == len(self.kernels) == len(self.strides):
            raise ValueError("channels, blocks, kernels and strides must be equally long, one entry a stage")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError("kernels must be odd")
        return self


class VitSizes(Sizes):
    """monai.networks.nets.ViT with a class token; an edge of the image must be divisible by the patch's."""

    patch: int = Field(default=4, ge=2, le=64, description="edge of a patch, in pixels")
    hidden: int = Field(default=48, ge=8, le=1024)
    mlp: int = Field(default=96, ge=8, le=4096)
    layers: int = Field(default=3, ge=1, le=24)
    heads: int = Field(default=4, ge=1, le=16)

    @model_validator(mode="after")
    def _heads_divide(self) -> "VitSizes":
        if self.hidden % self.heads:
            raise ValueError("hidden must be divisible by heads")
        return self


def efficientnet(sizes: EfficientnetSizes, size: Sequence[int], outputs: int) -> nn.Module:
    """Build an EfficientNet for images of this size."""
    before = [32, *sizes.channels]
    stages = [
        f"r{blocks}_k{kernel}_s{stride}{stride}_e{1 if number == 0 else sizes.expansion}_i{last}_o{channels}_se0.25"
        for number, (last, channels, blocks, kernel, stride) in enumerate(
            zip(before, sizes.channels, sizes.blocks, sizes.kernels, sizes.strides, strict=False)
        )
    ]
    network = EfficientNet(
        stages, spatial_dims=len(size), in_channels=1, num_classes=outputs, width_coefficient=sizes.width,
        depth_coefficient=sizes.depth, dropout_rate=0.0, image_size=max(size), drop_connect_rate=0.0,
    )  # fmt: skip
    network.set_swish(memory_efficient=False)
    plain: nn.Module = network
    return plain


class ClassToken(nn.Module):
    """A ViT of which the outputs alone are returned."""

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Shapes: (image, 1, *size) -> (image, output)."""
        outputs: torch.Tensor = self.vit(images)[0]
        return outputs


def vit(sizes: VitSizes, size: Sequence[int], outputs: int) -> nn.Module:
    """Build a ViT for images of this size.

    Raises: ValueError if the patches do not fill the image, or are too many.
    """
    if any(edge % sizes.patch for edge in size):
        raise ValueError(f"an edge of the image is no multiple of patch {sizes.patch}")
    tokens = math.prod(edge // sizes.patch for edge in size)
    if tokens > MOST_TOKENS:
        raise ValueError(f"{tokens} patches are more than {MOST_TOKENS}; raise patch")
    network = ViT(
        in_channels=1, img_size=list(size), patch_size=sizes.patch, hidden_size=sizes.hidden, mlp_dim=sizes.mlp,
        num_layers=sizes.layers, num_heads=sizes.heads, classification=True, num_classes=outputs,
        spatial_dims=len(size), post_activation=None,
    )  # fmt: skip
    for block in network.blocks:
        del block.cross_attn, block.norm_cross_attn
    return ClassToken(network)
