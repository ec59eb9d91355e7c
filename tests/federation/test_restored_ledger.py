"""A hospital restores an old backup of its gate: the real hub notices, nothing is spent, and the gap is made up for."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from compose.simulated_hub import SimulatedHub
from compose.simulated_site import SimulatedSite
from protocol.study import parse_study
from site_node.budget_report import budget_overview
from site_node.cli import app
from site_node.governance.gate import Gate
from site_node.governance.policy import load_policy
from site_node.governance.records import open_records
from site_node.settings import SitePaths, load_settings
from tests.fakes.dicom import make_hospital

TERMS: dict[str, Any] = {
    "cohort": {"modality": ["DX"], "minimum_patients": 4},
    "label": {"classes": ["absent", "present"]},
    "preprocessing": {"size": [16, 16], "augmentation": "none"},
    "network": {"name": "convnet"},
    "training": {"local_steps": 2, "sampling_rate": 0.5},
    "rounds": 1,
    "participants": {"training_patients": 40},
    "privacy": {"epsilon": 8.0, "delta": 1e-3},
}


class Federation:
    """Two hospitals and a hub, in one process."""

    def __init__(self, folder: Path, hub: SimulatedHub) -> None:
        self.hub, self.folder = hub, folder
        for number, name in enumerate(("north", "harbour")):
            make_hospital(folder / "images" / name, patients=24, size=16, seed=number)
        self.sites = {
            name: SimulatedSite(name, folder / "images" / name, folder / name, hub, seed=0, threads=1)
            for name in ("north", "harbour")
        }
        for site in self.sites.values():
            site.index()

    def run(self, name: str) -> dict[str, Any]:
        """Propose a study, let everybody work until it has ended, and return how the hub shows it."""
        study = parse_study({"name": name, **TERMS})
        self.hub.propose(study)
        for _ in range(400):
            done = sum(site.step() for site in self.sites.values()) + self.hub.step()
            shown: dict[str, Any] = self.hub.researcher.get(f"/v1/studies/{study.digest}")
            if shown["state"] in ("completed", "failed") and not done:
                return shown
        raise AssertionError("the study stands still")

    def budget(self, site: str = "north") -> dict[str, Any]:
        settings = load_settings(self.folder / site)
        return budget_overview(open_records(settings.paths), load_policy(settings.policy))

    def audit(self, action: str) -> list[dict[str, Any]]:
        entries = self.hub.researcher.get("/v1/audit?limit=1000")["entries"]
        return [entry for entry in entries if entry["action"] == action]

    def back_up(self, target: Path) -> None:
        source = SitePaths(self.folder / "north").gate_database
        with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
            database.backup(copy)

    def restore(self, backup: Path) -> None:
        """Put an old database back, with the letters of that time: none."""
        north, paths = self.sites["north"], SitePaths(self.folder / "north")
        north._gate.close()
        for path in paths.gate.glob("gate.sqlite*"):
            path.unlink()
        shutil.copy(backup, paths.gate_database)
        for path in (*paths.inbox.glob("*.json"), *paths.outbox.iterdir(), *paths.cohorts.iterdir()):
            path.unlink()
        north._gate = Gate(load_settings(self.folder / "north"))


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with SimulatedHub(tmp_path / "hub") as hub:
        yield Federation(tmp_path, hub)


def north_of(shown: dict[str, Any]) -> dict[str, Any]:
    return next(site for site in shown["sites"] if site["site"] == "north")


def test_a_restored_backup_spends_nothing_until_its_gap_is_charged(federation: Federation, tmp_path: Path) -> None:
    federation.back_up(tmp_path / "backup.sqlite")
    assert federation.run("first")["state"] == "completed"
    spent = federation.budget()["epsilon"]
    assert [told["countersigned"] for told in federation.budget()["told"]] == [True]
    assert len(federation.audit("ledger.charged")) == 2

    federation.restore(tmp_path / "backup.sqlite")
    assert federation.budget()["epsilon"] == 0.0
    refused = federation.run("second")
    assert (refused["state"], north_of(refused)["reason"]) == ("failed", "ledger-behind")
    assert federation.budget()["behind"] is True
    assert federation.budget()["epsilon"] == 0.0

    done = CliRunner().invoke(app, ["reconcile", str(tmp_path / "north"), "--yes"])
    assert done.exit_code == 0, done.output
    assert federation.budget()["behind"] is False
    assert federation.budget()["epsilon"] == pytest.approx(spent)

    assert federation.run("third")["state"] == "completed"
    found = federation.budget()
    assert found["epsilon"] > spent
    assert [told["countersigned"] for told in found["told"]] == [True]
    assert federation.audit("ledger.refused") == []
