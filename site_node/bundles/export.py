"""Write a version as a MONAI Bundle.

    configs/     metadata.json, metadata_schema.json, inference.json, study.json
    models/      model.pt (a state dict that `torch.load(weights_only=True)` reads), model.safetensors, and, where the
                 network allows, model.ts and model.onnx
    scripts/     portable.py: what MONAI lacks for reading and preparing as in training
    docs/        README.md (the model card), lineage.dsse.json
    LICENSE

Source: MONAI Bundle Specification. Everything is checked before a file is written: the config is built by MONAI's own
parser and must give what our network gives.
"""

import json
import shutil
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from site_node.bundles.inference_config import MODEL_FILE, inference_config
from site_node.bundles.metadata import metadata
from site_node.bundles.model_card import model_card
from site_node.bundles.network_definition import STUDY_FILE, built_by_wardround
from site_node.bundles.other_formats import Written, as_onnx, as_torchscript
from site_node.bundles.predictions import outputs_of
from site_node.bundles.released import ReleasedVersion, study_document
from site_node.errors import BundleError
from site_node.training.networks import build_network, input_shape, load_into

CARD, LINEAGE, LICENSE = "docs/README.md", "docs/lineage.dsse.json", "LICENSE"
SCRIPTS = {"scripts/__init__.py": '"""Scripts of this bundle."""\n', "scripts/portable.py": None}
SAME = 1e-6
"""How far outputs may differ between our network and the same one built from the config."""


@dataclass(frozen=True)
class ExportReport:
    """What was written, and of each further format why not, or None."""

    folder: Path
    formats: dict[str, str | None]
    needs_wardround: bool


def export_bundle(
    released: ReleasedVersion, out: Path, *, license_name: str = "", license_text: str = ""
) -> ExportReport:
    """Write a version's bundle into a new folder.

    Guarantee: the folder is there whole or not at all, and MONAI's parser builds from it a network that gives the
        outputs of the version.
    Raises: BundleError if the folder exists, or the config cannot say what the network is.
    """
    if out.exists():
        raise BundleError(f"{out} exists already.", "Name a new folder.")
    network = build_network(released.study)
    load_into(network, released.tensors())
    network.eval()
    outputs = outputs_of(released.study)
    config = inference_config(released.study, outputs)
    _check_definition(config, network, released)
    shape = input_shape(released.study)
    written = {"ONNX": as_onnx(network, shape), "TorchScript": as_torchscript(network, shape)}
    license_name = license_name or "not stated: ask the hospitals of the study"
    described = metadata(released, outputs, config, license_name)
    contents = {
        "configs/metadata.json": _json(described),
        "configs/metadata_schema.json": schema_text(),
        "configs/inference.json": _json(config),
        STUDY_FILE: study_document(released.study),
        MODEL_FILE: _state_dict(network),
        "models/model.safetensors": released.weights,
        CARD: model_card(released, _refusals(written), license_name).encode(),
        LINEAGE: released.envelope,
        LICENSE: (license_text or f"{license_name}\n").encode(),
        **script_contents(),
        **_further(written),
    }
    _write(contents, out)
    return ExportReport(out, _refusals(written), "wardround" in described["required_packages_version"])


def script_contents() -> dict[str, bytes]:
    """Return the Python files of a bundle of this release, by their names in it."""
    own = files("site_node.bundles").joinpath("portable.py").read_bytes()
    return {name: own if text is None else text.encode() for name, text in SCRIPTS.items()}


def schema_text() -> bytes:
    """Return the schema of metadata.json that bundles carry."""
    return files("site_node.bundles").joinpath("metadata_schema.json").read_bytes()


def _check_definition(config: dict[str, Any], network: nn.Module, released: ReleasedVersion) -> None:
    definition = config["network_def"]
    if definition["_target_"] == built_by_wardround()["_target_"]:
        return
    local = json.loads(json.dumps(definition).replace("scripts.portable", "site_node.bundles.portable"))
    built = ConfigParser({"network_def": local}).get_parsed_content("network_def").eval()
    image = torch.linspace(-1.0, 1.0, 2).view(2, *[1] * len(input_shape(released.study)))
    image = image + torch.randn(2, *input_shape(released.study), generator=torch.Generator().manual_seed(0))
    try:
        built.load_state_dict(network.state_dict())
        with torch.inference_mode():
            distance = float((built(image) - network(image)).abs().max())
    except RuntimeError:
        distance = float("inf")
    if not distance <= SAME:
        raise BundleError(
            f"MONAI's config does not build the network {released.study.network.name!r} as the hospitals did.",
            "Are MONAI and Wardround of the releases that the study was trained with?",
        )


def _state_dict(network: nn.Module) -> bytes:
    buffer = BytesIO()
    torch.save(network.state_dict(), buffer)
    return buffer.getvalue()


def _refusals(written: dict[str, Written]) -> dict[str, str | None]:
    return {name: one.refusal for name, one in written.items()}


def _further(written: dict[str, Written]) -> dict[str, bytes]:
    names = {"ONNX": "models/model.onnx", "TorchScript": "models/model.ts"}
    return {names[name]: one.content for name, one in written.items() if one.content is not None}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _write(contents: dict[str, bytes], out: Path) -> None:
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for name, content in contents.items():
            path = unfinished / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        unfinished.rename(out)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise BundleError(
            f"The bundle cannot be written: {error.strerror}.", "Name a folder on a disk with room."
        ) from None
