"""Personal models in a whole federation on real DICOM: FedBN with batch normalisation, and each algorithm under DP."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from compose.simulation import app
from protocol.digest import hex_of
from protocol.tensors import Weights, decode_weights
from tests.fakes.dicom import make_hospital

NAMES = ("north", "harbour")
STUDY: dict[str, Any] = {
    "name": "own-scales",
    "cohort": {"modality": ["DX"], "minimum_patients": 4},
    "label": {"classes": ["absent", "present"]},
    "preprocessing": {"size": [16, 16], "augmentation": "none"},
    "network": {"name": "convnet", "arguments": {"channels": [4, 8], "strides": [2, 2], "kernels": [3, 3], "head": 2}},
    "training": {"local_steps": 3, "sampling_rate": 0.5, "learning_rate": 0.3},
    "rounds": 2,
    "participants": {"training_patients": 40},
    "privacy": {"epsilon": None},
}
PRIVATE: dict[str, Any] = {"privacy": {"epsilon": 8.0, "delta": 1e-3}}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "FedProx": {"training": {**STUDY["training"], "proximal": 0.1}},
    "SCAFFOLD": {"strategy": {"name": "scaffold"}},
    "FedBN": {"personal": {"keep": ["normalisation"]}},
    "Ditto": {"personal": {"ditto": 0.5}},
}


@pytest.fixture
def hospitals(tmp_path: Path) -> list[str]:
    for number, name in enumerate(NAMES):
        make_hospital(tmp_path / name, patients=24, seed=number)
    return [f"--site={name}={tmp_path / name}" for name in NAMES]


def simulated(folder: Path, hospitals: list[str], out: str = "out", **changes: Any) -> dict[str, Any]:
    (folder / "study.yaml").write_text(yaml.safe_dump({**STUDY, **changes}))
    command = [str(folder / "study.yaml"), "--out", str(folder / out), "--threads", "1", *hospitals]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads((folder / out / "report.json").read_text())
    assert report["study"]["state"] == "completed"
    return report


def version(folder: Path, report: dict[str, Any], number: int) -> Weights:
    [path] = (folder / "out" / "hub").rglob(hex_of(report["versions"][number]["digest"]))
    return decode_weights(path)


def own_tensors(folder: Path, site: str) -> Weights:
    files = sorted((folder / "out" / "sites" / site / "worker" / "local_state").glob("*/own/*.safetensors"))
    return decode_weights(files[-1])


def test_batch_normalisation_s_tensors_stay_and_the_others_are_learnt_together(
    tmp_path: Path, hospitals: list[str]
) -> None:
    network = {**STUDY["network"], "normalisation": "batch"}
    report = simulated(tmp_path, hospitals, network=network, personal={"keep": ["normalisation"]})
    first, last = version(tmp_path, report, 0), version(tmp_path, report, 2)
    stayed = {name for name in first if np.array_equal(first[name], last[name])}
    own = {site: own_tensors(tmp_path, site) for site in NAMES}
    assert stayed == own["north"].keys() == own["harbour"].keys()
    assert {name.rsplit(".", 1)[1] for name in stayed} == {"weight", "bias", "running_mean", "running_var"}
    for name in stayed:
        assert not np.array_equal(own["north"][name], own["harbour"][name])
        assert not np.array_equal(own["north"][name], first[name])


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_each_algorithm_runs_within_its_epsilon(tmp_path: Path, hospitals: list[str], algorithm: str) -> None:
    report = simulated(tmp_path, hospitals, **PRIVATE, **ALGORITHMS[algorithm])
    assert 7.5 < report["privacy"]["epsilon"] <= 8.0


def test_what_is_kept_at_the_sites_repeats_to_the_bit(tmp_path: Path, hospitals: list[str]) -> None:
    first, again = (
        simulated(tmp_path, hospitals, out, **PRIVATE, **ALGORITHMS["SCAFFOLD"]) for out in ("out", "again")
    )
    assert first["versions"] == again["versions"]
    for site in NAMES:
        kept = [sorted((tmp_path / out / "sites" / site).rglob("control/*.safetensors")) for out in ("out", "again")]
        assert [path.read_bytes() for path in kept[0]] == [path.read_bytes() for path in kept[1]]
        assert len(kept[0]) == 2
