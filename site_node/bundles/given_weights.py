"""A bundle's weights as ours: safetensors, or a `.pt` that holds tensors alone, measured before it is read.

Read at the researcher's side; what goes to a hub is our own safetensors file, in which nothing can run.
Source: torch.load with weights_only=True (pytorch.org, "torch.load").
"""

import zipfile
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from torch import nn

from protocol.tensors import Weights
from site_node.bundles.archive import BundleFiles
from site_node.errors import BundleError
from site_node.training.classification_networks import ClassToken

SAFETENSORS, STATE_DICT = "models/model.safetensors", "models/model.pt"
MOST_WEIGHTS_BYTES = 1 << 30
NESTED = ("state_dict", "model", "network", "net")
NO_WEIGHTS = ("num_batches_tracked", "relative_position_index")
"""BatchNorm's counter of batches, and where SwinUNETR looks up its biases: no update carries them."""


def weights_for(network: nn.Module, files: BundleFiles, *, plain_instances: bool = False) -> Weights:
    """Return a bundle's weights, float32, as a network's; safetensors where there are both.

    `plain_instances`: the bundle's instance normalisation has no scale and shift; the network's are 1 and 0.

    Raises: BundleError if there are none, they hold more than tensors, are not finite, or are another network's.
    """
    given = _safetensors(files) if SAFETENSORS in files.sizes else _state_dict(files)
    wanted = {name: tuple(t.shape) for name, t in network.state_dict().items() if t.is_floating_point()}
    if isinstance(network, ClassToken):
        given = _of_class_token(given)
    if plain_instances:
        given = {**_plain_instances(network), **given}
    given = _one_logit_of_two(given, wanted)
    found = {name: tuple(array.shape) for name, array in given.items()}
    if wanted != found:
        raise BundleError(f"The weights are another network's: {_difference(wanted, found)}.", _WHY)
    weights = {name: np.ascontiguousarray(given[name], np.float32) for name in sorted(given)}
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise BundleError("The weights are not all finite numbers.", "Take another version of the bundle.")
    return weights


def _of_class_token(given: Weights) -> Weights:
    """Return the weights of MONAI's ViT under the names of ours, without the cross-attention that is never called."""
    if any(name.startswith("vit.") for name in given):
        return given
    called = {name: array for name, array in given.items() if "cross_attn" not in name}
    return {f"vit.{name}": array for name, array in called.items()}


def _plain_instances(network: nn.Module) -> Weights:
    """Return scale 1 and shift 0 of each layer that normalises every channel by itself."""
    return {
        f"{name}.{part}": np.full(layer.num_channels, value, np.float32)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.GroupNorm) and layer.num_groups == layer.num_channels
        for part, value in (("weight", 1.0), ("bias", 0.0))
    }


def _one_logit_of_two(given: Weights, wanted: Mapping[str, tuple[int, ...]]) -> Weights:
    """Return a network's weights with its last layer's two outputs as one, where a study of two classes has one.

    Guarantee: the same probabilities: softmax of (a, b) gives the second class what sigmoid gives b - a.
    """
    two = {
        name: array
        for name, array in given.items()
        if name in wanted and array.shape[:1] == (2,) and wanted[name] == (1, *array.shape[1:])
    }
    layer = {name.rpartition(".")[0] for name in two}
    if len(layer) != 1 or not {name.rpartition(".")[2] for name in two} <= {"weight", "bias"}:
        return given
    return {**given, **{name: array[1:] - array[:1] for name, array in two.items()}}


_WHY = "A study's network has one input channel, and as many outputs as its label says."


def _safetensors(files: BundleFiles) -> Weights:
    data = files.read(SAFETENSORS, MOST_WEIGHTS_BYTES)
    try:
        tensors = safetensors.numpy.load(data)
    except Exception:  # the reader's own errors, of a damaged header or offsets
        raise BundleError(f"{SAFETENSORS} is damaged.", "Fetch the bundle again.") from None
    return {name: array for name, array in tensors.items() if _is_weight(name, np.issubdtype(array.dtype, np.floating))}


def _state_dict(files: BundleFiles) -> Weights:
    data = files.read(STATE_DICT, MOST_WEIGHTS_BYTES)
    _refuse_bomb(data)
    try:
        loaded = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # torch names what it will not unpickle; the file may be anything
        raise BundleError(
            f"{STATE_DICT} holds more than tensors, or is damaged; it was not run.",
            "Ask for the weights as safetensors.",
        ) from None
    tensors = _tensors(loaded)
    return {
        name: tensor.detach().float().numpy()
        for name, tensor in tensors.items()
        if _is_weight(name, tensor.is_floating_point())
    }


def _tensors(loaded: Any) -> Mapping[str, torch.Tensor]:
    for key in NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise BundleError(f"{STATE_DICT} holds no state dict.", "Ask for the weights as safetensors.")
    return {str(name): tensor for name, tensor in loaded.items()}


def _refuse_bomb(data: bytes) -> None:
    if not zipfile.is_zipfile(BytesIO(data)):
        raise BundleError(f"{STATE_DICT} is of torch's old format.", "Ask for the weights as safetensors.")
    with zipfile.ZipFile(BytesIO(data)) as archive:
        inflated = sum(info.file_size for info in archive.infolist())
    if inflated > MOST_WEIGHTS_BYTES:
        raise BundleError(f"{STATE_DICT} would inflate to {inflated} bytes.", "It is no file of weights.")


def _is_weight(name: str, is_floating: bool) -> bool:
    if is_floating:
        return True
    if name.endswith(NO_WEIGHTS):
        return False
    raise BundleError(f"The tensor {name[:80]!r} holds no floating-point numbers.", "Such networks are not taken in.")


def _difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    missing, foreign = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing:
        return f"{missing[0][:80]!r} is missing"
    if foreign:
        return f"{foreign[0][:80]!r} is not of it"
    name = next(name for name in sorted(wanted) if wanted[name] != found[name])
    return f"{name[:80]!r} has the shape {found[name]} and not {wanted[name]}"
