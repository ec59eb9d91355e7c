"""How exactly a network computes while it trains (`training.precision`).

With bfloat16 convolutions and products take inputs and weights of 8 bits and add up in float32 (torch's autocast).
Weights, gradients, clipping, sums, noise and the optimiser's steps stay float32 or more: a layer's input and its
output's gradient become float32 before lengths or sums are made of them (`privacy/layerwise.py`), so that what is
clipped is what is added, and the bound on one patient is the one of float32. A network is judged in float32.
Source: Micikevicius et al. 2018, arXiv:1710.03740; Kalamkar et al. 2019, arXiv:1905.12322 (bfloat16, no loss scaling).
"""

from typing import TypeVar

import torch
from torch import Tensor, nn

from protocol.study import StudySpec

Network = TypeVar("Network", bound=nn.Module)


def in_precision(study: StudySpec, network: Network) -> Network:
    """Let a network compute with the study's precision; its outputs are float32 in either.

    Shapes: as the network's.
    """
    if study.training.precision == "float32":
        return network
    exact = network.forward

    def forward(images: Tensor) -> Tensor:
        # Without the cache of converted weights: torch.func takes gradients through each image's own.
        with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False):
            outputs: Tensor = exact(images)
        return outputs.float()

    network.forward = forward
    return network
