"""Tables that site.yaml names are looked at before a cohort needs them."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from site_node.cli import app
from site_node.doctor.examination import checks_of
from site_node.doctor.finding import Finding
from site_node.doctor.named_files import examine
from site_node.settings import SitePaths, load_settings

GOOD = {
    "labels": "patient_id,label\nNOBODY-1,yes\n",
    "table": "patient_id,age\nNOBODY-1,50\n",
    "merged_patients": "old_id,new_id\nNOBODY-1,NOBODY-2\n",
    "excluded_patients": "patient_id\nNOBODY-1\n",
}


@pytest.fixture
def paths(tmp_path: Path) -> SitePaths:
    (tmp_path / "images").mkdir()
    words = [
        "init",
        tmp_path / "site",
        "--name",
        "st-anna",
        "--hub",
        "http://127.0.0.1:9",
        "--images",
        tmp_path / "images",
    ]
    assert CliRunner().invoke(app, list(map(str, words))).exit_code == 0
    return SitePaths(tmp_path / "site")


def name_in_settings(paths: SitePaths, key: str) -> Path:
    file = yaml.safe_load(paths.configuration.read_text(encoding="utf-8")) | {key: "named.csv"}
    paths.configuration.write_text(yaml.safe_dump(file), encoding="utf-8")
    return paths.root / "named.csv"


def looked_at(paths: SitePaths, key: str) -> Finding:
    (finding,) = [finding for finding in examine(load_settings(paths.root)) if finding.check == key]
    return finding


def test_the_worker_s_user_looks_at_them() -> None:
    assert "site_node.doctor.named_files" in {check.module for check in checks_of("worker")}


def test_a_site_that_names_no_table_has_none_to_be_looked_at(paths: SitePaths) -> None:
    assert examine(load_settings(paths.root)) == []


@pytest.mark.parametrize("key", GOOD)
def test_a_named_table_that_is_missing_is_a_problem(paths: SitePaths, key: str) -> None:
    name_in_settings(paths, key)
    finding = looked_at(paths, key)
    assert (finding.level, "named.csv cannot be read" in finding.says) == ("problem", True)
    assert key in finding.remedy


@pytest.mark.parametrize("key", GOOD)
def test_a_named_table_without_its_columns_is_a_problem_and_no_word_of_it_is_said(paths: SitePaths, key: str) -> None:
    name_in_settings(paths, key).write_text("Mustermann,Erika\n", encoding="utf-8")
    finding = looked_at(paths, key)
    assert finding.level == "problem"
    assert "Mustermann" not in finding.says + finding.remedy


@pytest.mark.parametrize("key", GOOD)
def test_a_named_table_with_its_columns_is_fine(paths: SitePaths, key: str) -> None:
    name_in_settings(paths, key).write_text(GOOD[key], encoding="utf-8")
    finding = looked_at(paths, key)
    assert (finding.level, "NOBODY" in finding.says) == ("ok", False)


def test_labels_beside_the_images_are_looked_at_though_site_yaml_does_not_name_them(paths: SitePaths) -> None:
    load_settings(paths.root).labels.write_text("label\nyes\n", encoding="utf-8")
    assert looked_at(paths, "labels").level == "problem"
