"""A study's network as a component of a MONAI config: MONAI's own classes, or the bundle's `scripts/portable.py`.

A network without such a description is built by Wardround itself, which the bundle then names among what it needs.
"""

from collections.abc import Callable, Mapping
from typing import Any

from protocol.study import StudySpec
from site_node.training.network_sizes import ConvnetSizes, DensenetSizes, LinearSizes, MlpSizes, ResnetSizes, Sizes
from site_node.training.networks import PERMITTED, input_shape
from site_node.training.segmentation_networks import SegresnetSizes, UnetSizes

Config = dict[str, Any]
PORTABLE = "scripts.portable"
RUNTIME = "site_node.bundles.runtime"
STUDY_FILE = "configs/study.json"


def _convnet(sizes: ConvnetSizes, dimensions: int, outputs: int) -> Config:
    named = {"channels": sizes.channels, "strides": sizes.strides, "kernels": sizes.kernels, "head": sizes.head}
    return {"_target_": f"{PORTABLE}.convnet", "spatial_dims": dimensions, "out_channels": outputs, **named}


def _densenet(sizes: DensenetSizes, dimensions: int, outputs: int) -> Config:
    return {
        "_target_": "monai.networks.nets.DenseNet",
        "spatial_dims": dimensions,
        "in_channels": 1,
        "out_channels": outputs,
        "init_features": sizes.init_features,
        "growth_rate": sizes.growth_rate,
        "block_config": sizes.block_config,
        "bn_size": sizes.bn_size,
    }


def _resnet(sizes: ResnetSizes, dimensions: int, outputs: int) -> Config:
    return {
        "_target_": "monai.networks.nets.ResNet",
        "block": sizes.block,
        "layers": sizes.layers,
        "block_inplanes": sizes.planes,
        "spatial_dims": dimensions,
        "n_input_channels": 1,
        "conv1_t_size": sizes.first_kernel,
        "conv1_t_stride": sizes.first_stride,
        "no_max_pool": not sizes.max_pool,
        "num_classes": outputs,
        "bias_downsample": False,
    }


def _linear(_sizes: LinearSizes, columns: int, outputs: int) -> Config:
    return {"_target_": f"{PORTABLE}.perceptron", "features": columns, "hidden": [], "out_channels": outputs}


def _mlp(sizes: MlpSizes, columns: int, outputs: int) -> Config:
    return {"_target_": f"{PORTABLE}.perceptron", "features": columns, "hidden": sizes.hidden, "out_channels": outputs}


def _unet(sizes: UnetSizes, dimensions: int, outputs: int) -> Config:
    return {
        "_target_": "monai.networks.nets.UNet",
        "spatial_dims": dimensions,
        "in_channels": 1,
        "out_channels": outputs,
        "channels": sizes.channels,
        "strides": sizes.strides,
        "kernel_size": sizes.kernel,
        "up_kernel_size": sizes.kernel,
        "num_res_units": sizes.residual_units,
        "act": sizes.activation,
        "norm": "batch",
    }


def _segresnet(sizes: SegresnetSizes, dimensions: int, outputs: int) -> Config:
    return {
        "_target_": "monai.networks.nets.SegResNet",
        "spatial_dims": dimensions,
        "init_filters": sizes.init_filters,
        "in_channels": 1,
        "out_channels": outputs,
        "act": "relu",
        "norm": "batch",
        "blocks_down": sizes.blocks_down,
        "blocks_up": sizes.blocks_up,
    }


DESCRIBED: Mapping[str, Callable[..., Config]] = {
    "convnet": _convnet,
    "densenet": _densenet,
    "resnet": _resnet,
    "unet": _unet,
    "segresnet": _segresnet,
    "linear": _linear,
    "mlp": _mlp,
}


def network_definition(study: StudySpec, outputs: int) -> Config:
    """Return the component `network_def` of a study's network, with so many output channels."""
    describe = DESCRIBED.get(study.network.name)
    if describe is None:
        return built_by_wardround()
    sizes: Sizes = PERMITTED[study.network.name].sizes.model_validate(study.network.arguments)
    shape = input_shape(study)
    definition = describe(sizes, len(shape) - 1 or shape[0], outputs)
    kind = study.network.normalisation
    if kind == "batch" or study.kind == "tabular":
        return definition
    return {"_target_": f"{PORTABLE}.normalised", "network": definition, "kind": kind, "groups": sizes.groups}


def built_by_wardround() -> Config:
    """Return the component that has Wardround build the network of the bundle's own study."""
    return {"_target_": f"{RUNTIME}.network_of_study", "file": in_bundle(STUDY_FILE)}


def in_bundle(name: str) -> Config:
    """Return the component that is the path of a file of the bundle."""
    return {"_target_": f"{PORTABLE}.in_bundle", "name": name}


def targets_of(config: Any) -> set[str]:
    """Return every `_target_` in a config."""
    if isinstance(config, Mapping):
        own = {str(config["_target_"])} if "_target_" in config else set()
        return own.union(*(targets_of(value) for value in config.values()))
    if isinstance(config, list):
        return set().union(*(targets_of(value) for value in config))
    return set()
