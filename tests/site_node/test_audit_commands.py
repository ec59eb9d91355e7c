"""`wardround site audit-privacy` and `audit-inversion`, as an administrator types them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from protocol.study import StudySpec
from site_node.cli import app
from site_node.cohort.index import index_folder
from site_node.enrolment import create_site
from site_node.privacy_audit.attacks import GradientAttack
from site_node.privacy_audit.canaries import make_canaries
from tests.site_node.cohort.tables import table_study

ROOT = Path(__file__).parents[2]
HOSPITAL = ROOT / "compose" / "demo" / "hospitals" / "northfield"


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def contents(folder: Path) -> dict[Path, bytes]:
    """Return every file but the index, which SQLite may tidy when it is read."""
    files = [path for path in folder.rglob("*") if path.is_file() and "index.sqlite" not in path.name]
    return {path: path.read_bytes() for path in files}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    document = {
        "name": "two-steps",
        "cohort": {"modality": ["DX"], "minimum_patients": 1},
        "label": {"column": "pneumonia", "classes": ["no finding", "pneumonia"]},
        "preprocessing": {"size": [16, 16]},
        "network": {
            "name": "convnet",
            "arguments": {"channels": [8, 8], "strides": [2, 1], "kernels": [5, 3], "head": 8, "groups": 4},
        },
        "training": {"local_steps": 1, "sampling_rate": 0.4, "learning_rate": 0.5},
        "rounds": 2,
        "participants": {"training_patients": 100},
        "privacy": {"epsilon": 8, "delta": 1e-4},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_a_claim_is_audited_and_told_with_what_it_rests_on(study: Path) -> None:
    words = ("audit-privacy", "--study", str(study), "--epsilon", "1", "--epsilon", "null", "--canaries", "40")
    status, output, told = run(*words, "--json")
    assert status == 0, told
    found = json.loads(output)
    assert [run["claimed_epsilon"] for run in found["runs"]] == [1.0, None]
    assert [a["name"] for a in found["runs"][0]["attackers"]] == ["every step", "every round", "last version"]
    assert (found["canaries"], found["called_in"], found["called_out"], found["steps"]) == (40, 4, 4, 2)
    status, output, _ = run(*words)
    assert status == 0
    assert "40 canaries, each included by a coin; 4 called in and 4 called out, fixed beforehand (seed 0" in output
    assert "made-up patients" in output


def test_a_refuted_claim_ends_with_status_one(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_known(self: GradientAttack) -> Any:
        return make_canaries(spec, 60, 0).included.astype(float)

    spec = StudySpec.model_validate(yaml.safe_load(study.read_text(encoding="utf-8")))
    monkeypatch.setattr(GradientAttack, "scores", all_known)
    status, output, told = run("audit-privacy", "--study", str(study), "--epsilon", "0.5", "--canaries", "60")
    assert status == 1
    assert "REFUTED" in output
    assert "do not train" in told


def test_a_sites_own_patients_are_audited_and_nothing_is_recorded(study: Path, tmp_path: Path) -> None:
    site = create_site(tmp_path / "site", "northfield", "http://127.0.0.1:9", [HOSPITAL])
    index_folder(site.images, site.paths.index)
    before = contents(site.paths.root)
    status, output, told = run(
        "audit-privacy", str(tmp_path / "site"), "--study", str(study), "--epsilon", "8", "--canaries", "30", "--json"
    )
    assert status == 0, told
    assert "keep these figures in the hospital" in json.loads(output)["data"]
    assert contents(site.paths.root) == before
    assert "NIH" not in output + told


def test_faults_are_told_in_one_clear_message(study: Path, tmp_path: Path) -> None:
    of_table = tmp_path / "table.yaml"
    of_table.write_text(yaml.safe_dump(table_study().model_dump(mode="json", by_alias=True)))
    cases = [
        (("audit-privacy", "--epsilon", "many"), "is no number"),
        (("audit-privacy", "--epsilon", "-3"), "epsilon"),
        (("audit-privacy", str(tmp_path)), "--study STUDY.yaml"),
        (("audit-privacy", str(tmp_path), "--study", str(study)), "site.yaml is missing"),
        (("audit-privacy", "--study", str(tmp_path / "none.yaml")), "is missing"),
        (("audit-privacy", "--study", str(of_table)), "this one is tabular, binary"),
        (("audit-inversion", "--out", "x.png", "--study", str(of_table)), "this one is tabular, binary"),
        (("audit-inversion", "--out", "x.png", "--image", str(study)), "cannot be decoded"),
        (("audit-inversion", "--out", str(tmp_path / "no" / "x.png")), "is no folder"),
    ]
    for words, message in cases:
        status, output, told = run(*words)
        assert (status, message in told) == (1, True), (words, output, told)
        assert "Traceback" not in told


def test_the_figure_of_the_inversion_is_written_with_its_caption(study: Path, tmp_path: Path) -> None:
    out, image = tmp_path / "figure.png", next(HOSPITAL.rglob("*.dcm"))
    words = ("audit-inversion", "--out", str(out), "--study", str(study), "--image", str(image), "--json")
    status, output, told = run(*words)
    assert status == 0, told
    found = json.loads(output)
    assert [figure["view"] for figure in found["views"]] == ["plain", "private", "masked"]
    plain, private, masked = (figure["correlation"] for figure in found["views"])
    assert plain > 0.5
    assert max(abs(private), abs(masked)) < 0.3
    picture = Image.open(out)
    assert np.asarray(picture).shape == (16 * 4, 4 * 16 * 4 + 3 * 8)
    assert "Left to right" in picture.info["Description"]
