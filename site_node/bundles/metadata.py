"""configs/metadata.json: what MONAI's bundle specification asks for, and where the version comes from.

Source: MONAI Bundle Specification (docs.monai.io, mb_specification); the schema that it names is on the network, so a
bundle also carries `configs/metadata_schema.json`, ours, which asks for at least as much.
"""

from importlib.metadata import version as version_of
from typing import Any

from protocol.digest import digest_of_bytes
from protocol.study import StudySpec
from site_node.bundles.network_definition import targets_of
from site_node.bundles.predictions import columns_of
from site_node.bundles.released import ReleasedVersion
from site_node.training.networks import input_shape

SCHEMA_URL = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
NEEDED = {"image": ("pydicom", "pytorch-ignite"), "row": ("pytorch-ignite",)}
INTENDED_USE = "Research. Not a medical device: not cleared for diagnosis or treatment in any country."


def metadata(released: ReleasedVersion, outputs: int, config: dict[str, Any], license_name: str) -> dict[str, Any]:
    """Return the metadata of a version's bundle. Pure but for the versions of what is installed."""
    study, lineage = released.study, released.lineage
    rows = study.kind == "tabular"
    needed = [*NEEDED["row" if rows else "image"]]
    if any(target.startswith("site_node.") for target in targets_of(config)):
        needed.append("wardround")
    return {
        "schema": SCHEMA_URL,
        "version": f"0.{released.number}.0",
        "changelog": {f"0.{released.number}.0": f"version {released.number} of the study {study.name}"},
        "monai_version": version_of("monai"),
        "pytorch_version": version_of("torch").split("+")[0],
        "numpy_version": version_of("numpy"),
        "required_packages_version": {name: version_of(name) for name in needed},
        "name": study.title or study.name,
        "task": _task(study),
        "description": study.description or _task(study),
        "authors": "the hospitals of the study: " + ", ".join(_sites(lineage)) if _sites(lineage) else "Wardround",
        "copyright": "The hospitals of the study",
        "license": license_name,
        "data_source": "Patients of the named hospitals; no image left them. The study's terms: configs/study.json.",
        "data_type": "csv" if rows else "dicom",
        "image_classes": "standardised columns of a table" if rows else "one channel, mean 0 and deviation 1",
        "label_classes": ", ".join(study.label.classes),
        "pred_classes": ", ".join(columns_of(study)),
        "eval_metrics": evaluation(released),
        "intended_use": INTENDED_USE,
        "references": ["https://docs.monai.io/en/stable/mb_specification.html"],
        "network_data_format": {"inputs": {"image": _input(study)}, "outputs": {"pred": _output(study, outputs)}},
        "wardround": {
            "study": lineage["study_digest"],
            "version": released.number,
            "weights": digest_of_bytes(released.weights),
            "parents": list(lineage["parents"]),
            "participants": _sites(lineage),
            "privacy": lineage["privacy"],
        },
    }


def evaluation(released: ReleasedVersion) -> dict[str, float]:
    """Return the pooled held-out figures that the hub shows for the version; empty where there are none."""
    metrics = released.view.get("metrics") or {}
    return {
        key: round(float(value), 6)
        for key, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _sites(lineage: Any) -> list[str]:
    return [str(participant["site"]) for participant in lineage["participants"]]


def _task(study: StudySpec) -> str:
    what = {
        "binary": f"whether a patient has: {study.label.classes[1]}",
        "multi-class": "which one of: " + ", ".join(study.label.classes),
        "multi-label": "which of these findings: " + ", ".join(study.label.classes),
        "survival": f"the log-hazard of the event {study.label.classes[1]!r}",
        "segmentation": "where these are: " + ", ".join(study.label.classes[1:]),
        "regression": f"the number {study.label.column!r}",
    }[study.outcome]
    return f"{study.title or study.name}: tells {what}, from {'a row' if study.kind == 'tabular' else 'an image'}"


def _input(study: StudySpec) -> dict[str, Any]:
    channels, *shape = input_shape(study)
    modality = "/".join(study.cohort.modality or []) or "n/a"
    named = [f.column for f in study.table.features] if study.kind == "tabular" else ["image"]
    return {
        "type": "tuples" if study.kind == "tabular" else "image",
        "format": "raw" if study.kind == "tabular" else "magnitude",
        "modality": "n/a" if study.kind == "tabular" else modality,
        "num_channels": channels,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(number): name for number, name in enumerate(named)},
    }


def _output(study: StudySpec, outputs: int) -> dict[str, Any]:
    segments = study.outcome == "segmentation"
    names = study.label.classes if outputs == len(study.label.classes) else columns_of(study)
    return {
        "type": "image" if segments else "probabilities",
        "format": "labels" if segments else "classes",
        "num_channels": outputs,
        "spatial_shape": list(study.preprocessing.size) if segments else [],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(number): name for number, name in enumerate(names)},
    }
