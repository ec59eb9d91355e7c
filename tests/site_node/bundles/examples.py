"""Versions to export and bundles of others, small and made up."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets import DenseNet

from hub.registry.lineage import Lineage, LineageParticipant, sign_lineage
from protocol.digest import digest_of_bytes
from protocol.manifest import manifest_of
from protocol.signing import SigningKey
from protocol.study import StudySpec
from protocol.tensors import Weights, encode_weights
from site_node.bundles.released import ReleasedVersion, released_version
from site_node.training.networks import initial_weights

HUB_KEY = SigningKey.from_seed(b"h" * 32)
DENSENET = {
    "_target_": "monai.networks.nets.DenseNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "init_features": 4,
    "growth_rate": 4,
    "block_config": [1, 1],
    "bn_size": 2,
    "norm": ["group", {"num_groups": 4}],
}


def trained_weights(study: StudySpec, seed: int = 5) -> Weights:
    """Return weights that are not those of the seed."""
    generator = torch.Generator().manual_seed(seed)
    moved = {
        name: array + np.float32(0.2) * torch.randn(array.shape, generator=generator).numpy().astype(np.float32)
        for name, array in initial_weights(study).items()
    }
    return {
        name: np.asarray(np.abs(array) if "running_var" in name else array, np.float32) for name, array in moved.items()
    }


def version_view(study: StudySpec, weights: bytes, number: int = 3) -> dict[str, Any]:
    """Return what a hub says of a version."""
    lineage = Lineage(
        study_digest=study.digest,
        number=number,
        round=number,
        weights_digest=digest_of_bytes(weights),
        weights_bytes=len(weights),
        manifest_digest=manifest_of(initial_weights(study)).digest,
        parents=("sha256:" + "a" * 64,),
        participants=(LineageParticipant("north", 24.0, "sha256:" + "b" * 64, "sha256:" + "c" * 64),),
        epsilon=3.25,
        delta=1e-4,
        server_state=None,
        created_at=0.0,
    )
    metrics = {"auc": 0.8125, "patients": 40, "privacy": "not noised", "by_split": {}}
    return {"number": number, "lineage_envelope": sign_lineage(lineage, HUB_KEY).decode(), "metrics": metrics}


def version_of(study: StudySpec, weights: Weights | None = None) -> ReleasedVersion:
    """Return a version of a study, as it comes from a hub."""
    data = encode_weights(trained_weights(study) if weights is None else weights)
    document = study.model_dump(mode="json", by_alias=True)
    return released_version(document, version_view(study, data), data, HUB_KEY.public.text)


def write_json(path: Path, value: Any) -> Path:
    """Write a value as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def foreign_bundle(root: Path, config: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write a bundle of somebody else: a small DenseNet of MONAI's, without expressions; `changes` go into its config.

    A change of None takes the key away.
    """
    stated = {"network_def": DENSENET, "preprocessing": monai_preprocessing()} if config is None else config
    stated = {key: value for key, value in {**stated, **changes}.items() if value is not None}
    write_json(root / "configs" / "inference.json", stated)
    write_json(root / "configs" / "metadata.json", foreign_metadata())
    (root / "models").mkdir(exist_ok=True)
    torch.save(foreign_network().state_dict(), root / "models" / "model.pt")
    return root


def foreign_network() -> DenseNet:
    """Return the network of `foreign_bundle`, with its weights."""
    torch.manual_seed(1)
    arguments = {key: value for key, value in DENSENET.items() if not key.startswith("_")}
    return DenseNet(**{**arguments, "norm": ("group", {"num_groups": 4})}).eval()


def monai_preprocessing() -> dict[str, Any]:
    """Return a usual pipeline of MONAI's."""
    return {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Resized", "keys": "image", "spatial_size": [32, 32]},
        ],
    }


def foreign_metadata() -> dict[str, Any]:
    """Return the metadata of `foreign_bundle`."""
    image = {"modality": "CR", "num_channels": 1, "spatial_shape": [32, 32], "dtype": "float32"}
    pred = {"num_channels": 1, "channel_def": {"0": "nodule"}}
    return {"name": "Chest nodules", "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}}}
