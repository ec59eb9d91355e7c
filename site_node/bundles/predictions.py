"""What a study's network says, in words: its output channels, and what makes of them what a reader wants."""

from typing import Any

import torch

from protocol.study import StudySpec
from site_node.training.networks import build_network, input_shape

PORTABLE = "scripts.portable"
Config = dict[str, Any]


def outputs_of(study: StudySpec) -> int:
    """Return the number of output channels of a study's network."""
    network = build_network(study).to("meta").eval()
    with torch.inference_mode():
        return int(network(torch.empty(2, *input_shape(study), device="meta")).shape[1])


def columns_of(study: StudySpec) -> list[str]:
    """Return what the values of an image's line in eval/scores.csv are; of a segmentation, the mask's file."""
    columns = {
        "binary": study.label.classes[1:],
        "multi-class": study.label.classes,
        "multi-label": study.label.classes,
        "survival": ["log-hazard"],
        "regression": [f"{study.label.column} {study.regression.unit}".strip()],
        "segmentation": ["mask"],
    }
    return list(columns[study.outcome])


def activation_of(study: StudySpec) -> list[Config]:
    """Return the transforms from the network's output to the values of `columns_of`."""
    activation = {"_target_": "monai.transforms.Activationsd", "keys": "pred"}
    terms = study.regression
    made: dict[str, list[Config]] = {
        "binary": [{**activation, "sigmoid": True}],
        "multi-class": [{**activation, "softmax": True}],
        "multi-label": [{**activation, "sigmoid": True}],
        "survival": [],
        "regression": [{"_target_": f"{PORTABLE}.InUnits", "low": terms.low, "high": terms.high}],
        "segmentation": [{"_target_": "monai.transforms.AsDiscreted", "keys": "pred", "argmax": True}],
    }
    return made[study.outcome]


def writer_of(study: StudySpec) -> Config:
    """Return the handler that writes what was found."""
    if study.outcome == "segmentation":
        return {"_target_": f"{PORTABLE}.MasksWriter", "path": "@scores_file"}
    return {"_target_": f"{PORTABLE}.ScoresWriter", "path": "@scores_file", "columns": columns_of(study)}
