"""Three bundles as other people make them, small: a 2D DenseNet, a 3D UNet, a 3D SegResNet, with their own pipelines.

Written by hand after MONAI's specification: configs in JSON and YAML, as with `$` expressions as those of the model zoo
have them, and weights as safetensors. Networks are small, and otherwise what such bundles have.

>>> bundle = densenet_of_radiographs(folder)                                        # doctest: +SKIP
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser
from safetensors.torch import save_file
from torch import nn

Config = dict[str, Any]


@dataclass(frozen=True)
class ZooBundle:
    """A bundle's folder and what is in it; `terms` are what a person adds to make a study of it."""

    folder: Path
    config: Config
    terms: dict[str, Any]

    def network(self) -> nn.Module:
        """Return the bundle's own network, as MONAI builds it, with its weights."""
        return _network(self.config)

    @property
    def transforms(self) -> list[Config]:
        """The bundle's own preprocessing."""
        stated: list[Config] = self.config["preprocessing"]["transforms"]
        return stated


def densenet_of_radiographs(folder: Path, *, expressions: bool = False) -> ZooBundle:
    """Write a classifier of radiographs as configs/inference.json."""
    network: Config = {
        "_target_": "DenseNet",
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 2,
        "init_features": 8,
        "growth_rate": 4,
        "block_config": [2, 2],
        "bn_size": 2,
    }
    transforms: list[Config] = [
        {"_target_": "LoadImaged", "keys": "image", "reader": "PydicomReader"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "ScaleIntensityd", "keys": "image", "minv": 0.0, "maxv": 1.0},
        {"_target_": "Resized", "keys": "image", "spatial_size": [32, 24]},
        {"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 0.45, "divisor": 0.22},
        {"_target_": "EnsureTyped", "keys": "image"},
    ]
    return _written(
        folder, "inference.json", "Pneumonia classification", "CR", network, transforms, [32, 24],
        {"0": "normal", "1": "pneumonia"}, expressions=expressions,
        terms={"label": {"classes": ["normal", "pneumonia"]}},
    )  # fmt: skip


def unet_of_ct(folder: Path, *, expressions: bool = False) -> ZooBundle:
    """Write a segmentation of CT as configs/inference.json: resampled, windowed, cut to the body, in windows of 16."""
    network: Config = {
        "_target_": "monai.networks.nets.UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [4, 8, 16],
        "strides": [2, 2],
        "num_res_units": 2,
        "norm": "batch",
    }
    transforms: list[Config] = [
        {"_target_": "LoadImaged", "keys": ["image"]},
        {"_target_": "EnsureChannelFirstd", "keys": ["image"]},
        {"_target_": "Orientationd", "keys": ["image"], "axcodes": "RAS"},
        {"_target_": "Spacingd", "keys": ["image"], "pixdim": [0.6, 0.8, 1.5], "mode": "bilinear"},
        {"_target_": "ScaleIntensityRanged", "keys": ["image"], "a_min": -100, "a_max": 500, "b_min": 0.0,
         "b_max": 1.0, "clip": True},
        {"_target_": "CropForegroundd", "keys": ["image"], "source_key": "image"},
        {"_target_": "EnsureTyped", "keys": ["image"]},
    ]  # fmt: skip
    return _written(
        folder, "inference.json", "Box in CT", "CT", network, transforms, ["16*n", "16*n", "16*n"],
        {"0": "background", "1": "box"}, expressions=expressions,
        terms={"label": {"classes": ["background", "box"]}, "preprocessing": {"size": [16, 16, 16]}},
    )  # fmt: skip


def segresnet_of_mr(folder: Path, *, expressions: bool = False) -> ZooBundle:
    """Write a segmentation of MR as configs/inference.yaml: standardised where it is not 0, in a fixed size."""
    network: Config = {
        "_target_": "SegResNet",
        "spatial_dims": 3,
        "init_filters": 8,
        "in_channels": 1,
        "out_channels": 2,
        "blocks_down": [1, 1],
        "blocks_up": [1],
        "dropout_prob": 0.0,
    }
    transforms: list[Config] = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
        {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": [16, 16, 8]},
    ]
    return _written(
        folder, "inference.yaml", "Box in MR", "", network, transforms, [16, 16, 8],
        {"0": "background", "1": "box"}, expressions=expressions, terms={"label": {"classes": ["background", "box"]}},
    )  # fmt: skip


def _written(
    folder: Path,
    config_name: str,
    title: str,
    modality: str,
    network: Config,
    transforms: list[Config],
    shape: list[Any],
    classes: dict[str, str],
    *,
    expressions: bool,
    terms: dict[str, Any],
) -> ZooBundle:
    config: Config = {
        "bundle_root": ".",
        "network_def": network,
        "preprocessing": {"_target_": "Compose", "transforms": transforms},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Activationsd", "keys": "pred", "softmax": True},
    }
    if expressions:
        config |= {
            "imports": ["$import glob"],
            "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
            "network": "$@network_def.to(@device)",
            "datalist": "$list(sorted(glob.glob(@bundle_root + '/images/*')))",
        }
    metadata = {
        "name": title,
        "version": "0.1.0",
        "monai_version": "1.4.0",
        "task": title,
        "network_data_format": {
            "inputs": {"image": {"type": "image", "modality": modality, "num_channels": 1, "spatial_shape": shape,
                                 "dtype": "float32"}},
            "outputs": {"pred": {"num_channels": len(classes), "channel_def": classes}},
        },
    }  # fmt: skip
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    text = json.dumps(config, indent=2) if config_name.endswith(".json") else yaml.safe_dump(config, sort_keys=False)
    (folder / "configs" / config_name).write_text(text, encoding="utf-8")
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    state = _network(config).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "models" / "model.safetensors")
    return ZooBundle(folder, config, terms)


def _network(config: Config) -> nn.Module:
    torch.manual_seed(11)
    network: nn.Module = ConfigParser({"network_def": config["network_def"]}).get_parsed_content("network_def")
    generator = torch.Generator().manual_seed(12)
    with torch.no_grad():  # as after training: statistics of their own, and no layer as it was made
        for name, tensor in network.state_dict().items():
            if name.endswith("running_mean"):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
            elif name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return network.eval()
