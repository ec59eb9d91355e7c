"""Paths that somebody names, or does not: one clear message where one cannot be used, never a traceback."""

import json
from pathlib import Path

import numpy as np
import yaml
from typer.testing import CliRunner

from site_node.cli import app
from site_node.settings import load_settings
from tests.fakes.dicom import make_dataset, save
from tests.fakes.site_command import run


def site_in(folder: Path) -> str:
    (folder / "images").mkdir()
    words = ("--name", "st-anna", "--hub", "http://127.0.0.1:9", "--images", str(folder / "images"))
    assert run("init", str(folder / "site"), *words)[0] == 0
    return str(folder / "site")


def test_a_place_that_is_not_there_is_told_with_its_path(tmp_path: Path) -> None:
    folder, nowhere = site_in(tmp_path), tmp_path / "nowhere"
    run("index", folder)
    for words in (
        ("cohort", folder, "--doubtful", str(nowhere / "pairs.csv")),
        ("egress", folder, "--export", str(nowhere / "ledger.json")),
    ):
        status, output = run(*words)
        assert status == 1
        assert f"{nowhere} cannot be used: no such file or directory. Name another place." in output


def test_a_certificate_that_cannot_be_read_is_told_before_anything_listens(tmp_path: Path) -> None:
    folder, garbage = site_in(tmp_path), tmp_path / "garbage.pem"
    garbage.write_text("no certificate", encoding="utf-8")
    for file in (tmp_path / "nowhere.pem", garbage):
        status, output = run("api", folder, "--certificate", str(file), "--key", str(file))
        assert status == 1
        assert "cannot be read" in output
        assert "--certificate and --key" in output


def test_a_site_may_be_fed_by_the_network_alone(tmp_path: Path) -> None:
    status, output = run("init", str(tmp_path / "site"), "--name", "lis", "--hub", "https://hub.example.org")
    assert status == 0
    assert "add a block listener or pacs to site.yaml" in output
    settings = load_settings(tmp_path / "site")
    assert settings.images == (settings.paths.received,)
    assert settings.labels == settings.paths.root / "labels.csv"
    save(make_dataset(np.zeros((8, 8), np.uint8)), settings.paths.received / "a.dcm")
    assert "1 images (1 instances of 1 patients)" in run("index", str(tmp_path / "site"))[1]


def test_a_folder_of_images_that_went_away_fails_the_command_and_the_others_are_counted(tmp_path: Path) -> None:
    folder = site_in(tmp_path)
    (tmp_path / "share").mkdir()
    configuration = tmp_path / "site" / "site.yaml"
    settings = yaml.safe_load(configuration.read_text())
    configuration.write_text(yaml.safe_dump({**settings, "images": [*settings["images"], str(tmp_path / "share")]}))
    for place, patient in (("images", "P1"), ("share", "P2")):
        save(make_dataset(np.zeros((8, 8), np.uint8), patient_id=patient), tmp_path / place / "a.dcm")
    assert run("index", folder)[0] == 0
    (tmp_path / "share").rename(tmp_path / "elsewhere")
    save(make_dataset(np.zeros((8, 8), np.uint8), patient_id="P3"), tmp_path / "images" / "b.dcm")
    status, output = run("index", folder)
    assert (status, "3 files: 3 images (3 instances of 3 patients)" in output) == (1, True), output
    assert f"{tmp_path / 'share'} is not there" in output
    result = CliRunner().invoke(app, ["index", folder, "--json", "--decode"])
    assert (result.exit_code, json.loads(result.stdout)["quarantined"]) == (1, [])
    assert json.loads(result.stdout)["patients"] == 3
