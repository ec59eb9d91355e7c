"""Studies of several classes, and of several findings, in a whole federation: from DICOM files to a macro AUC."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from compose.simulation import app
from tests.fakes.dicom import make_dataset, save, write_labels

SIZE = 24
SPOTS = ((0.25, 0.25), (0.75, 0.5), (0.25, 0.75))
"""Where the classes' spots lie: row and column as parts of the image."""

Row = Callable[[int, np.random.Generator], tuple[list[int], dict[str, str]]]
"""From a patient's number to the spots in the patient's image, and what labels.csv says of it."""

STUDY: dict[str, Any] = {
    "name": "three-spots",
    "cohort": {"modality": ["DX"], "minimum_patients": 4},
    "label": {"classes": ["left", "low", "right"]},
    "preprocessing": {"size": [16, 16], "augmentation": "none"},
    "network": {
        "name": "convnet",
        "arguments": {"channels": [4, 8], "strides": [2, 2], "kernels": [3, 3], "head": 4, "groups": 2},
    },
    "training": {"local_steps": 8, "sampling_rate": 0.5, "learning_rate": 0.3},
    "rounds": 4,
    "participants": {"training_patients": 120},
    "privacy": {"epsilon": None},
}


def spots(chosen: list[int], generator: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    picture = 60 + generator.normal(0, 10, (SIZE, SIZE))
    for row, column in (SPOTS[number] for number in chosen):
        picture += 110 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 0.02)
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def one_of_three(number: int, _generator: np.random.Generator) -> tuple[list[int], dict[str, str]]:
    return [number % 3], {"label": STUDY["label"]["classes"][number % 3]}


def any_of_three(number: int, generator: np.random.Generator) -> tuple[list[int], dict[str, str]]:
    """Return findings of which a fifth is not known."""
    present = [place for place in range(3) if number >> place & 1]
    known = generator.random(3) < 0.8
    known[number % 3] = True
    said = {name: str(int(place in present)) if known[place] else "" for place, name in enumerate(("a", "b", "c"))}
    return present, said


def hospital(folder: Path, patients: int, row: Row, seed: int) -> None:
    generator = np.random.default_rng(seed)
    lines = []
    for number in range(patients):
        chosen, said = row(number, generator)
        dataset = make_dataset(spots(chosen, generator), f"P{number:04d}", f"{seed}-0")
        save(dataset, folder / f"{number}.dcm")
        lines.append({"patient_id": f"P{number:04d}", "sop_instance_uid": str(dataset.SOPInstanceUID), **said})
    write_labels(folder / "labels.csv", lines)


def simulated(tmp_path: Path, row: Row, names: tuple[str, ...] = ("north", "harbour"), **changes: Any) -> Any:
    """Return the report of a simulated study, run with this change of its terms."""
    options: list[str] = []
    for seed, name in enumerate(names):
        hospital(tmp_path / name, 60, row, seed)
        options += ["--site", f"{name}={tmp_path / name}"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY | changes))
    command = [str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"), "--threads", "1", *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["study"]["state"] == "completed"
    return report


PRIVATE = {
    "privacy": {"epsilon": 50.0, "delta": 1e-4},
    "training": {"local_steps": 12, "sampling_rate": 0.5, "learning_rate": 0.5},
    "evaluation": {"noise_epsilon": 20.0},
}


@pytest.mark.parametrize("changes", [{}, PRIVATE], ids=["without DP", "with DP"])
def test_hospitals_learn_three_classes(tmp_path: Path, changes: dict[str, Any]) -> None:
    report = simulated(tmp_path, one_of_three, **changes)
    metrics = report["rounds"][-1]["metrics"]
    assert metrics["auc"] > 0.8
    assert metrics["auc_low"] <= metrics["auc"] <= metrics["auc_high"]
    own = [view["auc"] for view in metrics["classes"]]
    assert metrics["classes_shown"] == 3
    assert metrics["auc"] == pytest.approx(np.mean(own))


def test_hospitals_learn_findings_of_which_some_are_not_known(tmp_path: Path) -> None:
    label = {"several": True, "classes": ["a", "b", "c"], "weights": [2.0, 1.0, 1.0]}
    report = simulated(tmp_path, any_of_three, label=label, rounds=5)
    metrics = report["rounds"][-1]["metrics"]
    assert metrics["auc"] > 0.8
    patients = [view["patients"] for view in metrics["classes"]]
    assert all(own < 40 for own in patients)  # a third of 120 is held out, and not every finding of them is known


@pytest.mark.parametrize("noise", [None, 20.0])
def test_under_masks_the_hub_opens_the_sum_of_all_classes_counts(tmp_path: Path, noise: float | None) -> None:
    names = ("north", "harbour", "hill", "lake")
    report = simulated(
        tmp_path, one_of_three, names, rounds=2, participants={"training_patients": 240, "minimum_sites": 4},
        evaluation={"noise_epsilon": noise, "sum_under_masks": True},
    )  # fmt: skip
    metrics = report["rounds"][-1]["metrics"]
    assert metrics["counts"] == "summed under masks"
    assert metrics["auc"] > 0.6
    assert all(site["metrics"] is None for site in report["rounds"][-1]["sites"])
