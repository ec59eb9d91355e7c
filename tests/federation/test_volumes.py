"""A study of volumes in a whole federation: CT series of two hospitals, one of them with slices that lie aslant."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from compose.simulation import app
from tests.fakes.series import make_volume_hospital

STUDY = {
    "name": "bright-ball",
    "cohort": {"modality": ["CT"], "minimum_patients": 4},
    "label": {"classes": ["absent", "present"]},
    "preprocessing": {"size": [8, 8, 8], "augmentation": "none"},
    "network": {
        "name": "convnet",
        "arguments": {"channels": [4, 8], "strides": [2, 2], "kernels": [3, 3], "head": 4, "groups": 2},
    },
    "training": {"local_steps": 8, "sampling_rate": 0.5, "learning_rate": 0.2},
    "rounds": 4,
    "participants": {"training_patients": 24},
    "privacy": {"epsilon": None},
}


@pytest.mark.parametrize("by_slice", [False, True])
def test_hospitals_learn_from_series_of_slices(tmp_path: Path, by_slice: bool) -> None:
    options: list[str] = []
    for name in ("north", "harbour"):
        tilt = 12.0 if name == "harbour" else 0.0
        make_volume_hospital(tmp_path / name, 36, by_slice=by_slice, tilt_degrees=tilt)
        options += ["--site", f"{name}={tmp_path / name}"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    command = [str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"), "--threads", "1", *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["study"]["state"] == "completed"
    # 12 training patients of each hospital, one series each, and as many volumes as patients
    assert {(site["patients"], site["images"]) for entry in report["rounds"] for site in entry["sites"]} == {(12, 12)}
    assert report["rounds"][-1]["metrics"]["auc"] > 0.9
