"""A whole federation in one process: the hub's real API, real gates, agents and training, real DICOM."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from compose.simulation import app
from tests.fakes.dicom import make_hospital

STUDY: dict[str, Any] = {
    "name": "bright-corner",
    "cohort": {"modality": ["DX"], "minimum_patients": 4},
    "label": {"classes": ["absent", "present"]},
    "preprocessing": {"size": [16, 16], "augmentation": "none"},
    "network": {"name": "convnet"},
    "training": {"local_steps": 4, "sampling_rate": 0.5, "learning_rate": 0.5},
    "rounds": 2,
    "participants": {"training_patients": 40},
    "privacy": {"epsilon": 8.0, "delta": 1e-3},
}


@pytest.fixture
def hospitals(tmp_path: Path) -> list[str]:
    for number, name in enumerate(("north", "harbour")):
        make_hospital(tmp_path / name, patients=24, seed=number)
    return ["--site", f"north={tmp_path / 'north'}", "--site", f"harbour={tmp_path / 'harbour'}"]


def run(tmp_path: Path, *options: str, study: dict[str, Any] | None = None, out: str = "out") -> tuple[int, str]:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study or STUDY))
    result = CliRunner().invoke(
        app, [str(tmp_path / "study.yaml"), "--out", str(tmp_path / out), "--threads", "1", *options]
    )
    return result.exit_code, result.output


def report_of(tmp_path: Path, out: str = "out") -> dict[str, Any]:
    report: dict[str, Any] = json.loads((tmp_path / out / "report.json").read_text())
    return report


def test_a_network_that_no_site_knows_is_refused_before_anything_is_read(tmp_path: Path, hospitals: list[str]) -> None:
    status, output = run(tmp_path, *hospitals, study={**STUDY, "network": {"name": "perceptron"}})
    assert status == 1
    assert "'perceptron' is not permitted" in output
    assert "indexed" not in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"personal": {"keep": ["nosuch"]}}, "personal.keep: 'nosuch' names no tensor of this network"),
        ({"personal": {"keep": ["*"]}}, "nothing is learnt together"),
        ({"network": {"name": "convnet", "arguments": {"foo": 1}}}, "foo"),
    ],
)
def test_tensors_and_arguments_that_the_network_lacks_are_refused_before_anything_is_read(
    tmp_path: Path, hospitals: list[str], changes: dict[str, Any], words: str
) -> None:
    status, output = run(tmp_path, *hospitals, study={**STUDY, **changes})
    assert status == 1
    assert words in output
    assert "indexed" not in output
    assert not (tmp_path / "out").exists()


def test_a_study_completes_and_its_report_says_what_happened(tmp_path: Path, hospitals: list[str]) -> None:
    status, output = run(tmp_path, *hospitals)
    assert status == 0, output
    report = report_of(tmp_path)
    assert report["study"]["state"] == "completed"
    assert report["privacy"]["unit"] == "patient"
    assert report["privacy"]["noise"] == "seeded"
    assert 0 < report["privacy"]["epsilon"] <= 8
    assert [r["number"] for r in report["rounds"]] == [1, 2]
    assert [v["number"] for v in report["versions"]] == [0, 1, 2]
    assert report["versions"][2]["parents"] == [report["versions"][1]["digest"]]
    for entry in report["rounds"]:
        assert {site["site"] for site in entry["sites"]} == {"north", "harbour"}
        assert all(site["patients"] > 0 and site["images"] > 0 and site["bytes_up"] > 0 for site in entry["sites"])
        assert entry["metrics"]["privacy"] == "held-out patients: no DP"


def test_the_same_seed_gives_the_same_versions_and_metrics(tmp_path: Path, hospitals: list[str]) -> None:
    for out in ("first", "second"):
        status, output = run(tmp_path, *hospitals, "--seed", "7", out=out)
        assert status == 0, output
    first, second = report_of(tmp_path, "first"), report_of(tmp_path, "second")
    assert first["versions"] == second["versions"]
    assert [r["metrics"] for r in first["rounds"]] == [r["metrics"] for r in second["rounds"]]
    run(tmp_path, *hospitals, "--seed", "8", out="third")
    assert report_of(tmp_path, "third")["versions"][2] != first["versions"][2]


def test_epsilon_can_be_overridden_and_turned_off(tmp_path: Path, hospitals: list[str]) -> None:
    status, output = run(tmp_path, *hospitals, "--set", "privacy.epsilon=null")
    assert status == 0, output
    assert report_of(tmp_path)["privacy"]["epsilon"] is None


def test_a_site_with_only_test_rows_evaluates_and_trains_nothing(tmp_path: Path, hospitals: list[str]) -> None:
    make_hospital(tmp_path / "readers", patients=12, seed=9, split=lambda _: "test")
    status, output = run(tmp_path, *hospitals, "--site", f"readers={tmp_path / 'readers'}")
    assert status == 0, output
    for entry in report_of(tmp_path)["rounds"]:
        reader = next(site for site in entry["sites"] if site["site"] == "readers")
        assert reader["bytes_up"] == 0 or reader["train_state"] is None
        assert reader["metrics"]["patients"] == 12


def test_an_earlier_run_is_not_overwritten_unasked(tmp_path: Path, hospitals: list[str]) -> None:
    assert run(tmp_path, *hospitals)[0] == 0
    status, output = run(tmp_path, *hospitals)
    assert status == 1
    assert "--fresh" in output
    assert run(tmp_path, *hospitals, "--fresh")[0] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": {"name": "transformer-9000"}}, "transformer-9000"),
        ({"network": {"name": "convnet", "normalisation": "batch"}}, "Use 'group'"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_a_study_that_cannot_run_is_refused_in_one_message(
    tmp_path: Path, hospitals: list[str], change: dict[str, Any], words: str
) -> None:
    status, output = run(tmp_path, *hospitals, study=STUDY | change)
    assert status == 1
    assert words in output
    assert "Traceback" not in output


def test_a_hospital_with_one_class_trains_nothing_and_only_its_administrator_is_told(
    tmp_path: Path, hospitals: list[str]
) -> None:
    make_hospital(tmp_path / "single", patients=24, seed=5, positive=lambda _: False)
    status, output = run(tmp_path, *hospitals, "--site", f"single={tmp_path / 'single'}")
    assert status == 0, output
    assert "single approved the study with 0 training patients" in output
    assert "single: this site does not train: the site's training patients are all of one class" in output
    for entry in report_of(tmp_path)["rounds"]:
        single = next(site for site in entry["sites"] if site["site"] == "single")
        assert single["bytes_up"] == 0 or single["train_state"] is None
        assert single["metrics"] is not None
    assert "one class" not in (tmp_path / "out" / "report.json").read_text()


def test_a_study_that_fails_says_why_in_plain_lines_and_promises_nothing(tmp_path: Path, hospitals: list[str]) -> None:
    (tmp_path / "north" / "labels.csv").write_text("GREY,1.2.840,1\n")
    status, output = run(tmp_path, *hospitals)
    assert status == 1
    assert "north: order failed: labels.csv lacks the columns 'patient_id'" in output
    assert "north refused: not-approved" in output
    assert "GREY" not in output
    assert not any(noise in output for noise in ("[error", '{"', "where=", "Traceback"))
    assert "Version None" not in output
    assert "differential privacy: at most" not in output


@pytest.mark.parametrize("name", ["St Anna", "north_wing", "-north", "n" * 64, "../north"])
def test_a_hospital_s_name_is_checked_before_anything_is_written(tmp_path: Path, name: str) -> None:
    make_hospital(tmp_path / "north", patients=1)
    status, output = run(tmp_path, "--site", f"{name}={tmp_path / 'north'}")
    assert status == 1
    assert "is no hospital's name" in output
    assert not (tmp_path / "out").exists()


def test_a_study_that_cannot_be_proposed_leaves_nothing(tmp_path: Path, hospitals: list[str]) -> None:
    status, output = run(
        tmp_path, *hospitals[:2], study=STUDY | {"participants": STUDY["participants"] | {"minimum_sites": 2}}
    )
    assert status == 1
    assert "needs at least 2 sites (participants.minimum_sites), and --site names 1" in output
    assert not (tmp_path / "out").exists()
    unknown = STUDY | {"start": {"weights": "sha256:" + "0" * 64}}
    for _ in range(2):  # the second finds no earlier run
        status, output = run(tmp_path, *hospitals, study=unknown)
        assert status == 1
        assert "earlier run" not in output
        assert list((tmp_path / "out").iterdir()) == []


def test_a_private_study_under_masks_completes_and_the_hub_holds_no_single_update(tmp_path: Path) -> None:
    names = ("anna", "bela", "clara", "dora")
    for number, name in enumerate(names):
        make_hospital(tmp_path / name, patients=16, seed=number)
    sites = [option for name in names for option in ("--site", f"{name}={tmp_path / name}")]
    study = STUDY | {
        "rounds": 1,
        "participants": {"training_patients": 40, "minimum_sites": 4},
        "transport": {"upload": []},
        "secure_aggregation": {"method": "masking", "maximum_sites": 4, "maximum_weight": 20},
    }
    status, output = run(tmp_path, *sites, study=study)
    assert status == 0, output
    report = report_of(tmp_path)
    assert report["study"]["state"] == "completed"
    assert 0 < report["privacy"]["epsilon"] <= 8
    (entry,) = report["rounds"]
    assert {site["train_state"] for site in entry["sites"]} == {"accepted"}
    # Held-out counts were summed under the masks too: pooled figures, and none of one hospital.
    assert entry["metrics"]["auc"] is not None
    assert entry["metrics"]["counts"] == "summed under masks"
    assert report["final"]["metrics"] == entry["metrics"]
    assert [site["metrics"] for site in entry["sites"]] == [None] * 4
    # Blobs: two versions as float32, four vectors of half their size; no update is there as float32.
    sizes = sorted(path.stat().st_size for path in (tmp_path / "out" / "hub" / "blobs").rglob("*") if path.is_file())
    assert len(sizes) == 7  # versions 0 and 1, four vectors, the mean
    assert sizes[0] == sizes[3] < 0.55 * sizes[4]
