"""Hospitals that keep their labels each in their own way, in one federation."""

import json
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from compose.simulation import app
from tests.fakes.drawn_hospital import make_drawn_volumes
from tests.fakes.segmented_hospital import make_segmented_volumes

STUDY: dict[str, Any] = {
    "name": "boxes",
    "kind": "segmentation",
    "cohort": {"minimum_patients": 4},
    "label": {"classes": ["background", "box"]},
    "preprocessing": {"size": [16, 16, 16], "augmentation": "none"},
    "network": {"name": "unet", "arguments": {"channels": [4, 8], "strides": [2], "groups": 2}},
    "training": {"local_steps": 2, "sampling_rate": 0.5},
    "rounds": 1,
    "participants": {"minimum_sites": 2, "training_patients": 16},
    "privacy": {"epsilon": None},
    "evaluation": {"splits": ["test"]},
}


def learned(folder: Path, makers: dict[str, Any]) -> dict[str, Any]:
    (folder / "study.yaml").parent.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    options = []
    for seed, (name, make) in enumerate(makers.items()):
        make(folder / name, 12, seed=seed)
        options += ["--site", f"{name}={folder / name}"]
    command = [str(folder / "study.yaml"), "--out", str(folder / "out"), "--threads", "1", *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    return report


def test_segmentations_in_the_archive_teach_the_same_as_files_beside_it(tmp_path: Path) -> None:
    """The same masks as NIfTI that masks.csv names, and as DICOM SEG that name their series: the same Dice."""
    by_file = learned(tmp_path / "files", {"north": make_drawn_volumes, "harbour": make_drawn_volumes})
    by_archive = learned(tmp_path / "archive", {"north": make_drawn_volumes, "harbour": make_segmented_volumes})
    assert by_archive["final"]["metrics"] == by_file["final"]["metrics"]
    assert by_archive["final"]["metrics"]
