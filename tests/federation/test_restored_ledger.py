"""A hospital restores an old backup of its gate: the real hub notices, nothing is spent, and the gap is made up for."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from site_node.cli import app
from site_node.governance.gate import Gate
from site_node.settings import load_settings
from tests.federation.two_hospitals import TwoHospitals


def run(federation: TwoHospitals, name: str) -> dict[str, Any]:
    """Propose a study, let everybody work until it has ended, and return how the hub shows it."""
    return federation.rest(federation.propose(name))


def audit(federation: TwoHospitals, action: str) -> list[dict[str, Any]]:
    entries = federation.hub.researcher.get("/v1/audit?limit=1000")["entries"]
    return [entry for entry in entries if entry["action"] == action]


def back_up(federation: TwoHospitals, target: Path) -> None:
    source = federation.north.gate_database
    with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)


def restore(federation: TwoHospitals, backup: Path) -> None:
    """Put an old database back, with the letters of that time: none."""
    north, paths = federation.sites["north"], federation.north
    north._gate.close()
    for path in paths.gate.glob("gate.sqlite*"):
        path.unlink()
    shutil.copy(backup, paths.gate_database)
    for path in (*paths.inbox.glob("*.json"), *paths.outbox.iterdir(), *paths.cohorts.iterdir()):
        path.unlink()
    north._gate = Gate(load_settings(paths.root))


def north_of(shown: dict[str, Any]) -> dict[str, Any]:
    return next(site for site in shown["sites"] if site["site"] == "north")


def test_a_restored_backup_spends_nothing_until_its_gap_is_charged(two_hospitals: TwoHospitals, tmp_path: Path) -> None:
    back_up(two_hospitals, tmp_path / "backup.sqlite")
    assert run(two_hospitals, "first")["state"] == "completed"
    spent = two_hospitals.budget()["epsilon"]
    assert [told["countersigned"] for told in two_hospitals.budget()["told"]] == [True]
    assert len(audit(two_hospitals, "ledger.charged")) == 2

    restore(two_hospitals, tmp_path / "backup.sqlite")
    assert two_hospitals.budget()["epsilon"] == 0.0
    refused = run(two_hospitals, "second")
    assert (refused["state"], north_of(refused)["reason"]) == ("failed", "ledger-behind")
    assert two_hospitals.budget()["behind"] is True
    assert two_hospitals.budget()["epsilon"] == 0.0

    done = CliRunner().invoke(app, ["reconcile", str(tmp_path / "north"), "--yes"])
    assert done.exit_code == 0, done.output
    assert two_hospitals.budget()["behind"] is False
    assert two_hospitals.budget()["epsilon"] == pytest.approx(spent)

    assert run(two_hospitals, "third")["state"] == "completed"
    found = two_hospitals.budget()
    assert found["epsilon"] > spent
    assert [told["countersigned"] for told in found["told"]] == [True]
    assert audit(two_hospitals, "ledger.refused") == []
