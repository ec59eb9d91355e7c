"""configs/inference.json: a bundle's inference as MONAI runs it, from a folder of DICOM files to a CSV of scores.

No `$` expression: every part is a component with a `_target_`, so that a bundle of ours is also one that we take in.
"""

from typing import Any

from protocol.study import StudySpec
from site_node.bundles.network_definition import (
    PORTABLE,
    RUNTIME,
    STUDY_FILE,
    Config,
    in_bundle,
    network_definition,
)
from site_node.bundles.predictions import activation_of, writer_of
from site_node.cohort.volumes import takes_volumes

KNOWN_PREPROCESSING = {"preset", "size", "intensity", "window", "augmentation", "mirror", "steps"}
KNOWN_INTENSITIES = ("percentile", "minmax", "window")
MODEL_FILE = "models/model.pt"


def inference_config(study: StudySpec, outputs: int) -> Config:
    """Return the inference of a study's version; `run` writes eval/scores.csv into the bundle. Pure."""
    return {
        "bundle_root": ".",
        "dataset_dir": "./images",
        "scores_file": in_bundle("eval/scores.csv"),
        "device": {"_target_": f"{PORTABLE}.best_device"},
        "network_def": network_definition(study, outputs),
        "network": {"_target_": f"{PORTABLE}.on_device", "network": "@network_def", "device": "@device"},
        "preprocessing": {"_target_": "monai.transforms.Compose", "transforms": preprocessing(study)},
        "datalist": _datalist(study),
        "dataset": {"_target_": "monai.data.Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {
            "_target_": "monai.data.DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": {"_target_": "monai.inferers.SimpleInferer"},
        "postprocessing": {"_target_": "monai.transforms.Compose", "transforms": activation_of(study)},
        "handlers": [
            {
                "_target_": "monai.handlers.CheckpointLoader",
                "load_path": in_bundle(MODEL_FILE),
                "load_dict": {"model": "@network"},
            },
            writer_of(study),
        ],
        "evaluator": {
            "_target_": "monai.engines.SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": {"_target_": f"{PORTABLE}.run", "evaluator": "@evaluator"},
    }


def is_portable(study: StudySpec) -> bool:
    """Tell whether a study's images are prepared by the bundle's own script, without an installed Wardround."""
    terms = study.preprocessing
    stated = set(terms.model_dump(exclude_defaults=True))
    return len(terms.size) == 2 and stated <= KNOWN_PREPROCESSING and terms.intensity in KNOWN_INTENSITIES


def preprocessing(study: StudySpec) -> list[dict[str, Any]]:
    """Return the transforms from an item of `datalist` to the network's input."""
    if study.kind == "tabular":
        features = [feature.model_dump(mode="json") for feature in study.table.features]
        return [{"_target_": f"{PORTABLE}.StandardiseRow", "features": features}]
    if not is_portable(study):
        return [{"_target_": f"{RUNTIME}.ReadAndPrepare", "file": in_bundle(STUDY_FILE)}]
    terms = study.preprocessing
    if terms.steps:
        return _steps(study)
    stated = {"size": terms.size, "intensity": terms.intensity, "window": terms.window}
    return [{"_target_": f"{PORTABLE}.ReadGrey"}, {"_target_": f"{PORTABLE}.PrepareGrey", **stated}]


def _steps(study: StudySpec) -> list[dict[str, Any]]:
    """Return a study's steps as the transforms of MONAI's that they are, on what MONAI's reader would have given."""
    transforms: list[dict[str, Any]] = []
    for step in study.preprocessing.steps:
        stated = step.model_dump(mode="json")
        name = stated.pop("transform")
        if stated.get("mode") == "linear":
            stated["mode"] = "bilinear"
        if name == "CropForeground":
            stated["source_key"] = "image"
        transforms.append({"_target_": f"monai.transforms.{name}d", "keys": "image", **stated})
    return [
        {"_target_": f"{PORTABLE}.ReadGrey"},
        {"_target_": "monai.transforms.Transposed", "keys": "image", "indices": [1, 0]},
        {"_target_": "monai.transforms.EnsureChannelFirstd", "keys": "image", "channel_dim": "no_channel"},
        *transforms,
        {"_target_": f"{PORTABLE}.Rounded"},
    ]


def _datalist(study: StudySpec) -> Config:
    if study.kind == "tabular":
        return {"_target_": f"{PORTABLE}.rows_in", "folder": "@dataset_dir"}
    if takes_volumes(study):
        return {"_target_": f"{RUNTIME}.series_in", "folder": "@dataset_dir"}
    return {"_target_": f"{PORTABLE}.images_in", "folder": "@dataset_dir"}
