"""Segmentation and regression in a whole federation: masks and numbers of hospitals, through the same rounds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from compose.simulation import app
from tests.fakes.drawn_hospital import make_drawn_hospital, make_drawn_volumes, make_measured_hospital

NAMES = ("north", "harbour", "valley", "coast")
BOXES: dict[str, Any] = {
    "name": "boxes",
    "kind": "segmentation",
    "cohort": {"minimum_patients": 4},
    "label": {"classes": ["background", "box"]},
    "preprocessing": {"size": [16, 16], "augmentation": "none"},
    "network": {"name": "unet", "arguments": {"channels": [4, 8], "strides": [2], "groups": 2}},
    "training": {"local_steps": 12, "sampling_rate": 0.5, "optimizer": "adam", "learning_rate": 0.02},
    "rounds": 3,
    "participants": {"minimum_sites": 2, "training_patients": 40},
    "privacy": {"epsilon": None},
    "evaluation": {"splits": ["test"]},
}
MONTHS: dict[str, Any] = {
    **BOXES,
    "name": "months",
    "kind": "regression",
    "label": {"column": "months"},
    "regression": {"low": 0, "high": 200, "unit": "months"},
    "preprocessing": {"size": [16, 16], "augmentation": "none", "intensity": "minmax"},
    "network": {
        "name": "convnet",
        "arguments": {"channels": [4, 8], "strides": [2, 2], "kernels": [3, 3], "head": 2, "groups": 2},
    },
}


def run(
    tmp_path: Path, study: dict[str, Any], make: Callable[..., Path], sites: int = 2, **terms: Any
) -> tuple[dict[str, Any], str]:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    options = []
    for seed, name in enumerate(NAMES[:sites]):
        make(tmp_path / name, 18, seed=seed, **terms)
        options += ["--site", f"{name}={tmp_path / name}"]
    command = [str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"), "--threads", "1", *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads((tmp_path / "out" / "report.json").read_text())
    return report, result.output


def test_hospitals_learn_masks_and_are_judged_by_dice(tmp_path: Path) -> None:
    report, said = run(tmp_path, BOXES, make_drawn_hospital)
    metrics = report["final"]["metrics"]
    assert (metrics["figure"], metrics["patients"]) == ("dice", 12)
    assert metrics["mean"] > 0.7
    assert metrics["mean_low"] < metrics["mean"] < metrics["mean_high"]
    assert "Dice 0." in said
    assert "Dice and its 95 % interval" in said
    assert {(site["patients"], site["images"]) for entry in report["rounds"] for site in entry["sites"]} == {(12, 24)}


def test_volumes_with_nifti_masks_are_learnt_from_also_with_a_tilted_gantry(tmp_path: Path) -> None:
    study = {**BOXES, "cohort": {"minimum_patients": 4, "modality": ["CT"]}}
    study["preprocessing"] = {"size": [16, 16, 16], "augmentation": "none"}
    report, _ = run(tmp_path, study, make_drawn_volumes, tilt_degrees=12.0)
    assert report["final"]["metrics"]["mean"] > 0.6


def test_private_training_charges_its_epsilon_and_noised_counts_show_no_number(tmp_path: Path) -> None:
    study = {
        **BOXES,
        "privacy": {"epsilon": 8.0, "delta": 1e-3},
        "evaluation": {"splits": ["test"], "noise_epsilon": 4.0},
    }
    report, _ = run(tmp_path, study, make_drawn_hospital)
    assert 0 < report["privacy"]["epsilon"] <= 8
    metrics = report["final"]["metrics"]
    assert (metrics["patients"], metrics["noise_epsilon"], metrics["privacy"]) == (None, 4.0, "noised")


@pytest.mark.parametrize("noise_epsilon", [None, 2.0])
def test_under_masks_the_hub_learns_the_sum_alone(tmp_path: Path, noise_epsilon: float | None) -> None:
    study = {
        **BOXES,
        "rounds": 1,
        "participants": {"minimum_sites": 4, "training_patients": 48},
        "evaluation": {"splits": ["test"], "noise_epsilon": noise_epsilon},
    }
    report, _ = run(tmp_path, study, make_drawn_hospital, sites=4)
    metrics = report["final"]["metrics"]
    assert metrics["counts"] == "summed under masks"
    assert metrics["patients"] == (24 if noise_epsilon is None else None)
    assert all(site["metrics"] is None for entry in report["rounds"] for site in entry["sites"])
    assert noise_epsilon is not None or metrics["mean"] > 0.2


def test_hospitals_learn_a_number_and_are_judged_by_their_error(tmp_path: Path) -> None:
    report, said = run(tmp_path, MONTHS, make_measured_hospital)
    metrics = report["final"]["metrics"]
    assert (metrics["figure"], metrics["patients"]) == ("absolute-error", 12)
    assert metrics["mean"] < 35  # of 200 months; a guess in the middle errs by 50
    assert "mean absolute error" in said
