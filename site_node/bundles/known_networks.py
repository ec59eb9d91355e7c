"""MONAI's networks that are taken in, and how each becomes a study's network: an allow-list, argument by argument."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from site_node.bundles.network_definition import PORTABLE
from site_node.errors import BundleError

Arguments = dict[str, Any]
DENSENETS = {
    "DenseNet121": (64, 32, [6, 12, 24, 16]),
    "DenseNet169": (64, 32, [6, 12, 32, 32]),
    "DenseNet201": (64, 32, [6, 12, 48, 32]),
    "DenseNet264": (64, 32, [6, 12, 64, 48]),
}
RESNETS = {
    "resnet10": ("basic", [1, 1, 1, 1]),
    "resnet18": ("basic", [2, 2, 2, 2]),
    "resnet34": ("basic", [3, 4, 6, 3]),
    "resnet50": ("bottleneck", [3, 4, 6, 3]),
    "resnet101": ("bottleneck", [3, 4, 23, 3]),
}
EFFICIENTNETS = {
    "efficientnet-b0": (1.0, 1.0, 224),
    "efficientnet-b1": (1.0, 1.1, 240),
    "efficientnet-b2": (1.1, 1.2, 260),
    "efficientnet-b3": (1.2, 1.4, 300),
    "efficientnet-b4": (1.4, 1.8, 380),
    "efficientnet-b5": (1.6, 2.2, 456),
    "efficientnet-b6": (1.8, 2.6, 528),
    "efficientnet-b7": (2.0, 3.1, 600),
    "efficientnet-b8": (2.2, 3.6, 672),
}
"""Width, depth, and the edge of the images whose padding MONAI's EfficientNetBN builds in."""
EFFICIENTNET_STAGES: Arguments = {
    "channels": [16, 24, 40, 80, 112, 192, 320],
    "blocks": [1, 2, 2, 3, 3, 4, 1],
    "kernels": [3, 3, 5, 3, 5, 5, 3],
    "strides": [1, 2, 2, 2, 1, 2, 1],
    "expansion": 6,
}
HALVINGS = 5
"""Of an EfficientNetBN's maps: its stem, and its four stages of stride 2."""
EFFICIENTNET_NORMALISATION = {"eps": 0.001, "momentum": 0.01}


@dataclass(frozen=True)
class KnownNetwork:
    """A bundle's network in a study's terms. `dimensions`, `outputs` and `size` are None where it does not say.

    `dropout` names the rates that a study's network is trained without; they hold no weights. `plain_instances`: its
    instance normalisation has no scale and shift, which a study's has (1 and 0 to start from). `padded_for`: the edge
    of the images whose padding its convolutions have; a study's are padded for its own images.
    """

    name: str
    normalisation: str
    arguments: Arguments
    dimensions: int | None
    outputs: int | None
    kind: str = "classification"
    size: list[int] | None = None
    dropout: tuple[str, ...] = ()
    plain_instances: bool = False
    padded_for: int | None = None


class _Stated:
    """The arguments of one component, each asked for once; what nobody asked for is refused."""

    def __init__(self, target: str, arguments: Mapping[str, Any]) -> None:
        self.target, self._left = target, dict(arguments)
        self.dropout: list[str] = []
        self.plain_instances = False

    def take(self, name: str, default: Any = None) -> Any:
        return self._left.pop(name, default)

    def must_be(self, name: str, *values: Any) -> None:
        if name in self._left and self._left.pop(name) not in values:
            raise BundleError(
                f"{self.target}: {name} has a value that a study's network cannot have.",
                f"Known: {' or '.join(map(repr, values))}.",
            )

    def drop(self, *names: str) -> None:
        """Take rates of dropout: layers without weights, which a study's networks have not."""
        for name in names:
            rate = self._left.pop(name, None)
            if not (rate is None or (isinstance(rate, int | float) and 0 <= rate < 1)):
                raise BundleError(f"{self.target}: {name} is no rate of dropout.", "Known: from 0 to below 1.")
            if rate:
                self.dropout.append(f"{name} {rate:g}")

    def finish(self) -> None:
        if self._left:
            names = ", ".join(sorted(self._left)[:5])
            raise BundleError(
                f"{self.target}: the arguments {names} say nothing to a study's network.", "Leave them out if they may."
            )


def known_network(component: Mapping[str, Any]) -> KnownNetwork:
    """Return a bundle's `network_def`, its references resolved, in a study's terms.

    Raises: BundleError if it is none that is taken in, or an argument has no place in a study.
    """
    target = str(component.get("_target_", ""))
    name = short_name(target)
    read = _READ.get(name)
    if read is None:
        raise BundleError(f"The network {target[:80]!r} is not among those that are taken in.", f"Known: {_known()}.")
    given = {key: value for key, value in component.items() if key not in ("_target_", "_desc_")}
    stated = _Stated(name, given)
    network = read(name, stated)
    dropout = (*stated.dropout, *network.dropout)
    return replace(network, dropout=dropout, plain_instances=stated.plain_instances or network.plain_instances)


def differs_in_padding(network: KnownNetwork, size: list[int]) -> bool:
    """Tell whether a study's images are padded elsewhere by a pixel than in the bundle's network. Pure.

    A convolution of stride 2 is padded by one pixel more where the edge of its maps is odd.
    """
    if network.padded_for is None:
        return False
    own, theirs = (
        [math.ceil(edge / 2**times) % 2 for times in range(HALVINGS)] for edge in (max(size), network.padded_for)
    )
    return own != theirs


def short_name(target: str) -> str:
    """Return a target's own name, if it is MONAI's or of the portable script; else the target as it stands."""
    if target.startswith(f"{PORTABLE}."):
        return target
    own = target.rsplit(".", 1)[-1]
    return own if "." not in target or target == f"monai.networks.nets.{own}" or _is_module(target, own) else target


def _is_module(target: str, own: str) -> bool:
    return target == f"monai.networks.nets.{own.lower().rstrip('0123456789')}.{own}"  # where its class is defined


def is_known(target: str) -> bool:
    """Tell whether a target is a network that is taken in."""
    return short_name(target) in _READ


def _known() -> str:
    return ", ".join(sorted(name for name in _READ if not name.startswith(PORTABLE)))


def _densenet(name: str, stated: _Stated) -> KnownNetwork:
    features, growth, blocks = DENSENETS.get(name, (64, 32, [6, 12, 24, 16]))
    stated.must_be("in_channels", 1)
    stated.must_be("act", "relu", ["relu", {"inplace": True}], ["relu", {"inplace": False}])
    stated.drop("dropout_prob")
    stated.must_be("pretrained", False)
    stated.must_be("progress", True, False)
    normalisation, groups = _normalisation(stated)
    network = KnownNetwork(
        "densenet",
        normalisation,
        {
            "init_features": stated.take("init_features", features),
            "growth_rate": stated.take("growth_rate", growth),
            "block_config": list(stated.take("block_config", blocks)),
            "bn_size": stated.take("bn_size", 4),
            **groups,
        },
        stated.take("spatial_dims"),
        stated.take("out_channels"),
    )
    stated.finish()
    return network


def _resnet(name: str, stated: _Stated) -> KnownNetwork:
    block, layers = RESNETS.get(name, ("basic", [1, 1, 1, 1]))
    stated.must_be("n_input_channels", 1)
    stated.must_be("bias_downsample", False)
    for argument, usual in (("shortcut_type", "B"), ("widen_factor", 1.0), ("feed_forward", True)):
        stated.must_be(argument, usual)
    stated.must_be("pretrained", False)
    stated.must_be("progress", True, False)
    stated.must_be("act", "relu", ["relu", {"inplace": True}])
    normalisation, groups = _normalisation(stated)
    kernel, stride = stated.take("conv1_t_size", 7), stated.take("conv1_t_stride", 1)
    arguments = {
        "block": stated.take("block", block),
        "layers": list(stated.take("layers", layers)),
        "planes": list(stated.take("block_inplanes", [64, 128, 256, 512])),
        "first_kernel": _one(kernel, "conv1_t_size"),
        "first_stride": _one(stride, "conv1_t_stride"),
        "max_pool": not stated.take("no_max_pool", False),
        **groups,
    }
    network = KnownNetwork(
        "resnet", normalisation, arguments, stated.take("spatial_dims", 3), stated.take("num_classes")
    )
    stated.finish()
    return network


def _unet(_name: str, stated: _Stated) -> KnownNetwork:
    stated.must_be("in_channels", 1)
    stated.drop("dropout")
    stated.must_be("bias", True)
    stated.must_be("adn_ordering", "NDA")
    activation = _activation(stated)
    normalisation, groups = _normalisation(stated, "instance")
    kernel = _one(stated.take("kernel_size", 3), "kernel_size")
    stated.must_be("up_kernel_size", kernel)
    arguments = {
        "channels": list(stated.take("channels", [])),
        "strides": list(stated.take("strides", [])),
        "kernel": kernel,
        "residual_units": stated.take("num_res_units", 0),
        "activation": activation,
        **groups,
    }
    dimensions, outputs = stated.take("spatial_dims"), stated.take("out_channels")
    stated.finish()
    return KnownNetwork("unet", normalisation, arguments, dimensions, outputs, "segmentation")


def _segresnet(_name: str, stated: _Stated) -> KnownNetwork:
    stated.must_be("in_channels", 1)
    stated.drop("dropout_prob")
    stated.must_be("act", "relu", "RELU", ["RELU", {"inplace": True}], ["relu", {"inplace": True}])
    stated.must_be("use_conv_final", True)
    stated.must_be("upsample_mode", "nontrainable")
    normalisation, groups = _normalisation(stated, ["group", {"num_groups": 8}])
    arguments = {
        "init_filters": stated.take("init_filters", 8),
        "blocks_down": list(stated.take("blocks_down", [1, 2, 2, 4])),
        "blocks_up": list(stated.take("blocks_up", [1, 1, 1])),
        **groups,
    }
    dimensions, outputs = stated.take("spatial_dims", 3), stated.take("out_channels", 2)
    stated.finish()
    return KnownNetwork("segresnet", normalisation, arguments, dimensions, outputs, "segmentation")


def _swinunetr(_name: str, stated: _Stated) -> KnownNetwork:
    stated.must_be("in_channels", 1)
    for argument, usual in (
        ("patch_size", 2), ("qkv_bias", True), ("mlp_ratio", 4.0), ("normalize", True), ("patch_norm", False),
        ("downsample", "merging"), ("use_v2", False), ("use_hyena", False),
    ):  # fmt: skip
        stated.must_be(argument, usual)
    for saves_memory in ("use_checkpoint", "use_flash_attention"):
        stated.must_be(saves_memory, True, False)
    stated.drop("drop_rate", "attn_drop_rate", "dropout_path_rate")
    stated.take("img_size")  # of older releases of MONAI, which only checked it
    normalisation, groups = _normalisation(stated, "instance", "norm_name")
    arguments = {
        "feature_size": stated.take("feature_size", 24),
        "depths": list(stated.take("depths", [2, 2, 2, 2])),
        "heads": list(stated.take("num_heads", [3, 6, 12, 24])),
        "window": _one(stated.take("window_size", 7), "window_size"),
        **groups,
    }
    dimensions, outputs = stated.take("spatial_dims", 3), stated.take("out_channels")
    stated.finish()
    return KnownNetwork("swinunetr", normalisation, arguments, dimensions, outputs, "segmentation")


def _vit(_name: str, stated: _Stated) -> KnownNetwork:
    stated.must_be("in_channels", 1)
    needed = {"classification": (False, True), "post_activation": ("Tanh", None)}
    for argument, (usual, wanted) in needed.items():
        if stated.take(argument, usual) != wanted:
            raise BundleError(
                f"{stated.target}: {argument} has a value that a study's network cannot have.", f"Known: {wanted!r}."
            )
    for argument, value in (("proj_type", "conv"), ("pos_embed_type", "learnable"), ("qkv_bias", False)):
        stated.must_be(argument, value)
    stated.must_be("save_attn", True, False)
    stated.drop("dropout_rate")
    dimensions, size = stated.take("spatial_dims", 3), stated.take("img_size")
    arguments = {
        "patch": _one(stated.take("patch_size"), "patch_size"),
        "hidden": stated.take("hidden_size", 768),
        "mlp": stated.take("mlp_dim", 3072),
        "layers": stated.take("num_layers", 12),
        "heads": stated.take("num_heads", 12),
    }
    outputs = stated.take("num_classes", 2)
    stated.finish()
    edges = [size] * dimensions if isinstance(size, int) and dimensions in (2, 3) else size
    return KnownNetwork("vit", "group", arguments, dimensions, outputs, size=edges)


def _efficientnet(_name: str, stated: _Stated) -> KnownNetwork:
    model = str(stated.take("model_name"))
    if model not in EFFICIENTNETS:
        raise BundleError(
            f"{stated.target}: model_name has a value that a study's network cannot have.",
            f"Known: {', '.join(EFFICIENTNETS)}.",
        )
    if stated.take("in_channels", 3) != 1:
        raise BundleError(
            f"{stated.target}: in_channels has a value that a study's network cannot have.", "Known: 1; usual is 3."
        )
    for argument in ("pretrained", "progress", "adv_prop"):  # the bundle's weights come in place of those
        stated.must_be(argument, True, False)
    width, depth, edge = EFFICIENTNETS[model]
    norm = stated.take("norm", "batch")
    own = isinstance(norm, list) and norm == ["batch", EFFICIENTNET_NORMALISATION]
    normalisation, groups = ("batch", {}) if own or norm == "batch" else _normalisation_of(stated, norm)
    arguments = {"width": width, "depth": depth, **EFFICIENTNET_STAGES, **groups}
    dimensions, outputs = stated.take("spatial_dims", 2), stated.take("num_classes", 1000)
    stated.dropout.append("the model's own rates")
    stated.finish()
    return KnownNetwork("efficientnet", normalisation, arguments, dimensions, outputs, padded_for=edge)


def _activation(stated: _Stated) -> str:
    named = str(stated.take("act", "prelu")).lower()
    if named not in ("relu", "prelu"):
        raise BundleError(
            f"{stated.target}: its activation is none that a study's network has.", "Known: act relu, and prelu."
        )
    return named


def _convnet(_name: str, stated: _Stated) -> KnownNetwork:
    arguments = {key: stated.take(key) for key in ("channels", "strides", "kernels", "head")}
    network = KnownNetwork("convnet", "batch", arguments, stated.take("spatial_dims"), stated.take("out_channels"))
    stated.finish()
    return network


def _normalised(_name: str, stated: _Stated) -> KnownNetwork:
    inner = stated.take("network")
    kind, groups = stated.take("kind"), stated.take("groups", 8)
    stated.finish()
    if not isinstance(inner, Mapping):
        raise BundleError("A normalised network names no network.", "Mend the config.")
    network = known_network(inner)
    arguments = {**network.arguments, "groups": groups}
    return replace(network, normalisation=kind, arguments=arguments)


def _normalisation(stated: _Stated, usual: Any = "batch", argument: str = "norm") -> tuple[str, Arguments]:
    return _normalisation_of(stated, stated.take(argument, usual))


def _normalisation_of(stated: _Stated, norm: Any) -> tuple[str, Arguments]:
    kind, terms = (norm, {}) if isinstance(norm, str) else (norm[0], norm[1] if len(norm) > 1 else {})
    if str(kind).lower() == "batch" and not terms:
        return "batch", {}
    if str(kind).lower() == "group" and set(terms) <= {"num_groups", "affine"} and terms.get("affine", True):
        return "group", {"groups": terms.get("num_groups", 8)}
    if str(kind).lower() == "instance" and set(terms) <= {"affine"}:
        stated.plain_instances = not terms.get("affine", False)
        return "instance", {}
    raise BundleError(
        f"{stated.target}: its normalisation is none that a study's network can have.",
        "Known: batch, instance, and group with num_groups.",
    )


def _one(value: Any, name: str) -> Any:
    values = set(value) if isinstance(value, list) else {value}
    if len(values) != 1:
        raise BundleError(f"{name} differs between the axes.", "A study's network has the same for all.")
    return values.pop()


_READ: Mapping[str, Callable[[str, _Stated], KnownNetwork]] = {
    "DenseNet": _densenet,
    **dict.fromkeys(DENSENETS, _densenet),
    "ResNet": _resnet,
    **dict.fromkeys(RESNETS, _resnet),
    "UNet": _unet,
    "SegResNet": _segresnet,
    "SwinUNETR": _swinunetr,
    "ViT": _vit,
    "EfficientNetBN": _efficientnet,
    f"{PORTABLE}.convnet": _convnet,
    f"{PORTABLE}.normalised": _normalised,
}
