"""The sizes of the permitted networks: a study's `network.arguments`, closed against misspelt keys."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Channels = Annotated[int, Field(ge=1, le=2048)]
Stride = Annotated[int, Field(ge=1, le=8)]
Kernel = Annotated[int, Field(ge=1, le=15)]


class Sizes(BaseModel):
    """Sizes that all networks have."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    groups: int = Field(default=8, ge=1, le=256, description="groups of a GroupNorm, lowered where they do not divide")


class ConvnetSizes(Sizes):
    """Convolutions, then a linear layer on a grid of `head` x `head` averages, which knows where things are."""

    channels: list[Channels] = Field(default=[16, 32, 32], min_length=1, max_length=12)
    strides: list[Stride] = Field(default=[2, 2, 2], min_length=1, max_length=12)
    kernels: list[Kernel] = Field(default=[5, 3, 3], min_length=1, max_length=12)
    head: int = Field(default=4, ge=1, le=32)

    @model_validator(mode="after")
    def _same_length(self) -> "ConvnetSizes":
        if not len(self.channels) == len(self.strides) == len(self.kernels):
            raise ValueError("channels, strides and kernels must be equally long, one entry a layer")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError("kernels must be odd")
        return self


class DensenetSizes(Sizes):
    """monai.networks.nets.DenseNet; the defaults are a small one."""

    init_features: Channels = 16
    growth_rate: Channels = 8
    block_config: list[Annotated[int, Field(ge=1, le=64)]] = Field(default=[2, 2, 2], min_length=1, max_length=6)
    bn_size: int = Field(default=2, ge=1, le=8)


class ResnetSizes(Sizes):
    """monai.networks.nets.ResNet of four stages; layers [2, 2, 2, 2] with 64 to 512 planes are a ResNet-18."""

    block: Literal["basic", "bottleneck"] = "basic"
    layers: list[Annotated[int, Field(ge=1, le=64)]] = Field(default=[1, 1, 1, 1], min_length=4, max_length=4)
    planes: list[Channels] = Field(default=[16, 32, 64, 64], min_length=4, max_length=4)
    first_kernel: Kernel = 7
    first_stride: Stride = 2
    max_pool: bool = True


class LinearSizes(Sizes):
    """One linear layer over a table's columns: logistic regression, or Cox's proportional hazards."""


class MlpSizes(Sizes):
    """Linear layers with a ReLU between them, over a table's columns."""

    hidden: list[Annotated[int, Field(ge=1, le=8192)]] = Field(default=[32, 32], min_length=1, max_length=12)
