"""Tabular studies in a whole federation: hospitals whose data are CSV files, through the same rounds as images."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from compose.simulation import app
from tests.site_node.cohort.tables import SURVIVAL_HEADER, many_rows, write_table

TABLE: dict[str, Any] = {
    "name": "marker",
    "kind": "tabular",
    "cohort": {"minimum_patients": 4},
    "table": {"features": [{"column": "age", "mean": 60, "deviation": 10}, {"column": "marker", "missing": 0}]},
    "label": {"column": "died", "classes": ["no", "yes"]},
    "network": {"name": "mlp", "arguments": {"hidden": [4]}},
    "training": {"local_steps": 4, "sampling_rate": 0.5, "learning_rate": 0.5},
    "rounds": 2,
    "participants": {"minimum_sites": 2, "training_patients": 160},
    "privacy": {"epsilon": 8.0, "delta": 5e-4},
    "evaluation": {"splits": ["test"]},
}
SURVIVAL: dict[str, Any] = {
    **TABLE,
    "name": "hazard",
    "label": {**TABLE["label"], "time_column": "days"},
    "network": {"name": "linear"},
    "training": {"local_steps": 20, "sampling_rate": 0.5, "learning_rate": 0.3, "images_per_patient": 1},
    "privacy": {"epsilon": None},
}
NAMES = ("north", "harbour", "valley", "coast")


def run(tmp_path: Path, study: dict[str, Any], sites: int = 2) -> tuple[dict[str, Any], str]:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    options = []
    for seed, name in enumerate(NAMES[:sites]):
        table = write_table(tmp_path / f"{name}.csv", many_rows(60, seed), SURVIVAL_HEADER)
        options += ["--site", f"{name}={table}"]
    command = [str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"), "--threads", "1", *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads((tmp_path / "out" / "report.json").read_text())
    return report, result.output


def test_a_private_table_is_learnt_from_and_its_budget_charged(tmp_path: Path) -> None:
    report, said = run(tmp_path, TABLE)
    assert "a table of 60 rows of 60 patients, 6 columns" in said
    assert 0 < report["privacy"]["epsilon"] <= 8
    metrics = report["final"]["metrics"]
    assert (metrics["patients"], metrics["positives"]) == (40, 20)
    right = metrics["sensitivity"] * 20 + metrics["specificity"] * 20
    assert metrics["accuracy"] == pytest.approx(right / 40)
    assert all(site["patients"] == 40 for entry in report["rounds"] for site in entry["sites"])
    assert "PAT-" not in said
    assert "PAT-" not in json.dumps(report)


def test_survival_is_judged_by_pairs_within_hospitals(tmp_path: Path) -> None:
    report, said = run(tmp_path, SURVIVAL)
    metrics = report["final"]["metrics"]
    assert metrics["concordance"] > 0.6  # the marker tells who dies, and soon
    assert metrics["auc"] is None
    assert "concordance 0." in said


def test_a_table_under_masks_is_summed_without_the_hub_seeing_a_hospital(tmp_path: Path) -> None:
    hidden = {"method": "masking", "maximum_sites": 4, "maximum_weight": 100}
    participants = {"minimum_sites": 4, "training_patients": 160}
    study = {**TABLE, "secure_aggregation": hidden, "participants": participants, "transport": {"upload": []}}
    report, _ = run(tmp_path, study, sites=4)
    assert report["study"]["state"] == "completed"
    assert report["final"]["metrics"]["counts"] == "summed under masks"
    assert report["final"]["metrics"]["patients"] == 80


def test_a_hospital_that_offers_no_table_refuses_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    study = {**TABLE, "participants": {"minimum_sites": 2, "training_patients": 160}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    options = ["--site", f"pictures={tmp_path / 'images'}"]
    for seed, name in enumerate(NAMES[:2]):
        table = write_table(tmp_path / f"{name}.csv", many_rows(60, seed), SURVIVAL_HEADER)
        options += ["--site", f"{name}={table}"]
    command = [str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"), "--threads", "1", *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {site["site"] for entry in report["rounds"] for site in entry["sites"]} == {"north", "harbour"}
