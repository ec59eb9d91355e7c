"""`wardround site check`: what it finds, how it ends, and what it never says."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import BaseModel
from typer.testing import CliRunner

from site_node.cli import app
from site_node.governance.records import open_records
from site_node.orders import readiness_task_id
from site_node.settings import load_settings
from tests.fakes.dicom import FakeHospital, make_hospital, write_labels
from tests.fakes.drawn_hospital import make_drawn_hospital
from tests.fakes.gated_site import GatedSite, study_of

STUDY: dict[str, Any] = {
    "name": "check-me",
    "cohort": {"modality": ["DX"], "minimum_patients": 10},
    "label": {"classes": ["normal", "pneumonia"]},
    "preprocessing": {"size": [16, 16]},
    "network": {
        "name": "convnet",
        "arguments": {"channels": [4, 8], "strides": [2, 2], "kernels": [3, 3], "head": 2, "groups": 2},
    },
    "training": {"local_steps": 3, "sampling_rate": 0.25},
    "rounds": 2,
    "participants": {"training_patients": 100},
    "evaluation": {"noise_epsilon": 1.0},
    "privacy": {"epsilon": 4.0, "delta": 1e-4},
}


class Checked(BaseModel):
    """How the command ended."""

    status: int
    output: str
    stdout: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdout)
        return found

    def finding(self, check: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.document["findings"] if one["check"] == check)
        return found


def run(*words: str) -> Checked:
    result = CliRunner().invoke(app, list(words))
    return Checked(status=result.exit_code, output=result.output, stdout=result.stdout)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return made_site(
        tmp_path, make_hospital(tmp_path / "images", 36, split=lambda n: "test" if n % 3 == 0 else "train")
    )


def made_site(folder: Path, hospital: FakeHospital) -> Path:
    site = folder / "site"
    options = ["--name", "st-anna", "--hub", "http://127.0.0.1:9", "--images", str(hospital.folder)]
    assert run("init", str(site), *options).status == 0
    assert run("index", str(site)).status == 0
    return site


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "images" / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def study_file(folder: Path, **changes: Any) -> str:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes))
    return str(path)


def test_a_site_that_is_ready_is_told_so_with_its_figures(site: Path, tmp_path: Path) -> None:
    checked = run("check", str(site), study_file(tmp_path), "--json")
    found = checked.document
    assert (checked.status, found["status"], found["ready"]) == (0, 0, True), checked.output
    assert found["patients"]["by_split"] == {"train": 20, "validation": None, "test": 10}
    assert found["patients"]["classes"]["train"] == {"normal": 10, "pneumonia": 10}
    assert 0 < found["privacy"]["epsilon"]["training"] <= 4.0
    assert found["privacy"]["epsilon"]["held-out"] > 0
    machine = found["machine"]
    assert machine["round_minutes"] > 0
    assert machine["memory_needed"] > 1 << 20
    assert machine["disk_needed"] >= 72 * 16 * 16 * 2
    assert checked.finding("pace")["says"].startswith("About ")


def test_nothing_is_approved_charged_kept_or_sent(site: Path, tmp_path: Path) -> None:
    paths = load_settings(site).paths
    assert run("check", str(site), study_file(tmp_path), "--no-measure").status == 0
    for folder in (paths.frozen_cohorts, paths.cache, paths.outbox, paths.cohorts, paths.candidates):
        assert not folder.exists() or not list(folder.iterdir())
    database = open_records(paths)
    assert database.execute("SELECT COUNT(*) FROM studies").fetchone()[0] == 0
    database.close()


def test_each_thing_that_fell_out_comes_with_its_remedy_and_no_small_count(site: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    for row in rows[:4]:
        row["label"] = "lungs inflamed"
    rows[5]["patient_id"] = "P9999"
    rows.append({**rows[6], "sop_instance_uid": "2.25.99"})
    write_labels(tmp_path / "images" / "labels.csv", rows)
    checked = run("check", str(site), study_file(tmp_path), "--no-measure", "--json")
    assert checked.status == 1
    assert checked.finding("conflicts")["says"].startswith("fewer than 10 images: its header")
    assert checked.finding("orphans")["says"].startswith("fewer than 10 rows of labels.csv: no usable image")
    assert all(one["remedy"] for one in checked.document["findings"] if one["level"] != "ok")
    assert "P9999" not in checked.output
    assert "2.25." not in checked.output
    assert "lungs" not in checked.output
    assert checked.document["unknown_names"] == {"words": {}, "rarer": 1}
    named = run("check", str(site), study_file(tmp_path), "--no-measure", "--json", "--all-names")
    assert named.document["unknown_names"] == {"words": {"lungs inflamed": 2}, "rarer": 0}


def test_words_that_label_names_maps_are_known(site: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    for row in rows:
        row["label"] = "inflamed" if row["label"] == "1" else "clear"
    write_labels(tmp_path / "images" / "labels.csv", rows)
    before = run("check", str(site), study_file(tmp_path), "--no-measure", "--json")
    assert (before.status, before.document["unknown_names"]["words"]) == (2, {"inflamed": 18, "clear": 18})
    with (site / "site.yaml").open("a", encoding="utf-8") as file:
        file.write("label_names: {Inflamed: pneumonia, CLEAR: normal}\n")
    after = run("check", str(site), study_file(tmp_path), "--no-measure", "--json")
    assert (after.status, after.document["unknown_names"]) == (0, {"words": {}, "rarer": 0}), after.output


def test_a_study_of_masks_is_told_what_they_hold_and_which_structures_nobody_knows(tmp_path: Path) -> None:
    make_drawn_hospital(tmp_path / "images", 24, split=lambda n: "test" if n % 2 else "train")
    labels = tmp_path / "images" / "labels.csv"
    site = made_site(tmp_path, FakeHospital(tmp_path / "images", labels, ()))
    checked = run("check", str(site), study_file(tmp_path, **DRAWN), "--no-measure", "--json")
    assert checked.document["patients"]["masks"] == {"of": 40, "out_of": 40, "box": None}
    assert checked.document["patients"]["by_split"] == {"train": 10, "validation": None, "test": 10}
    assert checked.finding("policy")["level"] == "problem"  # the careful policy wants differential privacy


def test_a_name_in_one_patients_cell_is_not_shown_however_many_images_it_labels(tmp_path: Path) -> None:
    images = tmp_path / "images"
    make_hospital(images, 24, images_per_patient=12)
    rows = [{"patient_id": f"P{n:04d}", "label": "Erika Mustermann" if n == 0 else str(n % 2)} for n in range(24)]
    site = made_site(tmp_path, FakeHospital(images, write_labels(images / "labels.csv", rows), ()))
    checked = run("check", str(site), study_file(tmp_path), "--no-measure")
    assert "Erika" not in checked.output
    assert "1 words or values stand for no class of the study; 1 rarer" in checked.output


DRAWN: dict[str, Any] = {
    **{"kind": "segmentation", "label": {"classes": ["background", "box"]}, "network": {"name": "unet"}},
    **{"privacy": {"epsilon": None}, "participants": {}, "evaluation": {}},
}


def test_the_values_of_masks_that_nobody_named_are_listed_with_what_to_do(tmp_path: Path) -> None:
    images = tmp_path / "images"
    labels = make_drawn_hospital(images, 24, split=lambda n: "test" if n % 2 else "train")
    site = made_site(tmp_path, FakeHospital(images, labels, ()))
    study = study_file(tmp_path, **DRAWN)
    assert run("check", str(site), study, "--no-measure", "--json").document["unknown_names"]["words"] == {}
    for number in range(24):
        drawn = images / "masks" / f"{number}-0.png"
        Image.fromarray(np.asarray(Image.open(drawn)) // 255 * np.uint8(7)).save(drawn)
    checked = run("check", str(site), study, "--no-measure", "--json")
    assert checked.document["unknown_names"] == {"words": {"7": 24, "255": 24}, "rarer": 0}
    assert checked.finding("patients")["remedy"].startswith("Name each value in label_names")
    with (site / "site.yaml").open("a", encoding="utf-8") as file:
        file.write("label_names: {255: box}\n")
    checked = run("check", str(site), study, "--no-measure", "--json")
    assert checked.document["unknown_names"]["words"] == {"7": 24}
    assert checked.finding("unreadable")["says"].endswith("the mask holds values that stand for no class.")
    assert checked.finding("unreadable")["remedy"].startswith("Name each value in label_names")


def test_words_of_masks_that_were_not_read_are_not_called_known(tmp_path: Path) -> None:
    images = tmp_path / "images"
    labels = make_drawn_hospital(images, 24, split=lambda n: "test" if n % 2 else "train")
    site = made_site(tmp_path, FakeHospital(images, labels, ()))
    (images / "masks.csv").unlink()
    checked = run("check", str(site), study_file(tmp_path, **DRAWN), "--no-measure", "--json")
    assert checked.finding("labels")["level"] == "problem"
    assert (checked.finding("names")["level"], checked.document["unknown_names"]) == ("unseen", None)
    (images / "labels.csv").unlink()
    checked = run("check", str(site), study_file(tmp_path), "--no-measure", "--json")
    assert checked.finding("names")["level"] == "unseen"


def room_of(checked: Checked) -> tuple[str, float]:
    """Return the level of what is said of the budget, and the epsilon that would still fit."""
    finding = checked.finding("budget")
    assert finding["says"].endswith("still fits that of every patient (lifetime 24, used at most 0).")
    return finding["level"], float(finding["says"].partition("of up to epsilon ")[2].split()[0])


def test_what_fits_is_reckoned_from_the_studys_own_events_and_not_from_the_policys_maximum(
    site: Path, tmp_path: Path
) -> None:
    usual = {**STUDY["privacy"], "epsilon": 12.0}
    for privacy, fits in (
        (STUDY["privacy"], True),
        (usual, True),  # above maximum_epsilon, which the policy's finding says
        ({**usual, "epsilon": 23.0, "delta": 1e-3}, False),
    ):
        checked = run("check", str(site), study_file(tmp_path, privacy=privacy), "--no-measure", "--json")
        level, left = room_of(checked)
        assert (level, left > privacy["epsilon"]) == (("ok", True) if fits else ("problem", False)), left


def test_every_objection_of_the_policy_is_told(site: Path, tmp_path: Path) -> None:
    changes = {"network": {"name": "vit"}, "privacy": {"epsilon": 9.0, "delta": 5e-4}}
    found = run("check", str(site), study_file(tmp_path, **changes), "--no-measure", "--json").document["findings"]
    told = " ".join(one["says"] for one in found if one["check"] == "policy")
    assert [rule in told for rule in ("`networks`", "`maximum_epsilon`", "`maximum_delta`")] == [True] * 3


def test_a_study_that_cannot_run_here_ends_with_two(site: Path, tmp_path: Path) -> None:
    for changes, check in (
        ({"cohort": {"modality": ["DX"], "minimum_patients": 30}}, "training"),
        ({"cohort": {"modality": ["DX"], "sex": ["O"]}}, "patients"),
        ({"label": {"column": "covid", "classes": ["no", "yes"]}}, "labels"),
        ({"privacy": {"epsilon": None}}, "policy"),
    ):
        checked = run("check", str(site), study_file(tmp_path, **changes), "--no-measure", "--json")
        assert (checked.status, checked.document["ready"]) == (2, False)
        assert checked.finding(check)["level"] == "problem"


def test_it_reads_as_lines_too(site: Path, tmp_path: Path) -> None:
    output = run("check", str(site), study_file(tmp_path), "--no-measure").output
    assert "train: 20 patients (normal: 10; pneumonia: 10)" in output
    assert output.rstrip().endswith("This site is ready for the study.")


def test_what_was_not_proposed_is_not_guessed(site: Path) -> None:
    checked = run("check", str(site), "no-such-study")
    assert (checked.status, "wardround site studies" in checked.output) == (2, True)


def test_a_study_that_does_not_parse_is_refused_with_what_is_wrong(site: Path, tmp_path: Path) -> None:
    checked = run("check", str(site), study_file(tmp_path, rounds=0))
    assert (checked.status, "rounds" in checked.output) == (2, True)


def test_a_proposal_that_waits_is_found_by_its_name_or_its_digests_beginning(tmp_path: Path) -> None:
    gated = GatedSite.make(tmp_path, "approval: person\nmodalities: any\nminimum_patients: 1\n")
    study, folder = study_of(), str(gated.paths.root)
    gated.propose(study)
    gated.sweep()
    for named in (study.name, study.digest, study.digest.removeprefix("sha256:")[:12]):
        checked = run("check", folder, named, "--no-measure", "--json")
        assert checked.document["study_digest"] == study.digest
        assert checked.finding("labels")["says"] == "The images of this site are not indexed yet."
    gated.propose(study_of(rounds=4))
    gated.sweep()
    assert "Several studies" in run("check", folder, study.name).output


def test_what_would_leave_is_shown_and_only_a_yes_lets_the_gate_tell_it(tmp_path: Path) -> None:
    gated = GatedSite.make(tmp_path, "approval: person\nmodalities: any\nnetworks: any\n")
    study = study_of()
    gated.propose(study)
    gated.sweep()
    folder = str(gated.paths.root)
    refused = CliRunner().invoke(app, ["check", folder, study.name, "--send"], input="n\n")
    assert (refused.exit_code, "Nothing is sent." in refused.output) == (1, True)
    assert "none of which depends on a patient" in refused.output
    gated.sweep()
    assert not gated.paths.orders.joinpath(f"{readiness_task_id(study.digest, 1)}.json").exists()
    sent = run("check", folder, study.digest[:19], "--send", "--yes")
    assert (sent.status, "Report 1 of 3" in sent.output) == (0, True)
    gated.sweep()
    assert gated.paths.orders.joinpath(f"{readiness_task_id(study.digest, 1)}.json").exists()


def test_a_file_or_a_study_of_nobody_is_not_told_of(tmp_path: Path) -> None:
    gated = GatedSite.make(tmp_path)
    told = run("check", str(gated.paths.root), study_file(tmp_path), "--send", "--yes")
    assert (told.status, "No study's file, name or digest" in told.output) == (1, True)
