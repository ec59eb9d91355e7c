"""A hospital is backed up, trains, loses its machine and is restored: a real hub, real training, and no budget back.

And drained: the round that was begun is finished and counted, the next waits until the site goes on.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from compose.simulated_hub import SimulatedHub
from compose.simulated_site import SimulatedSite
from protocol.study import StudySpec, parse_study
from site_node.budget_report import budget_overview
from site_node.cli import app
from site_node.governance import holding
from site_node.governance.gate import Gate
from site_node.governance.policy import load_policy
from site_node.governance.records import open_records
from site_node.settings import SitePaths, load_settings
from tests.fakes.dicom import make_hospital

NAMES = ("north", "harbour")
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
        for number, name in enumerate(NAMES):
            make_hospital(folder / "images" / name, patients=24, size=16, seed=number)
        self.sites = {
            name: SimulatedSite(name, folder / "images" / name, folder / name, hub, seed=0, threads=1) for name in NAMES
        }
        for site in self.sites.values():
            site.index()

    @property
    def north(self) -> SitePaths:
        return SitePaths(self.folder / "north")

    def propose(self, name: str, **changes: Any) -> StudySpec:
        study = parse_study({"name": name, **TERMS, **changes})
        self.hub.propose(study)
        return study

    def step(self) -> int:
        return sum(site.step() for site in self.sites.values()) + self.hub.step()

    def rest(self, study: StudySpec) -> dict[str, Any]:
        """Let everybody work until nothing more happens; return how the hub shows the study."""
        for _ in range(400):
            if not self.step():
                shown: dict[str, Any] = self.hub.researcher.get(f"/v1/studies/{study.digest}")
                return shown
        raise AssertionError("it never rests")

    def budget(self) -> float:
        database = open_records(self.north)
        return float(budget_overview(database, load_policy(load_settings(self.north.root).policy))["epsilon"])


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with SimulatedHub(tmp_path / "hub") as hub:
        yield Federation(tmp_path, hub)


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


@pytest.mark.parametrize("mark_is_lost", [False, True])
def test_a_restored_site_trains_again_only_once_it_has_paid_for_what_it_forgot(
    federation: Federation, tmp_path: Path, mark_is_lost: bool
) -> None:
    key, backup, north = tmp_path / "key", tmp_path / "north.backup", federation.north
    key.write_bytes(b"k" * 32)
    assert run("backup", north.root, backup, "--key-file", key)[0] == 0
    assert federation.rest(federation.propose("first"))["state"] == "completed"
    spent = federation.budget()
    assert spent > 0

    federation.sites["north"]._gate.close()
    assert run("restore", north.root, backup, "--key-file", key)[0] == 1  # what is there is newer
    status, output = run("restore", north.root, backup, "--key-file", key, "--force")
    assert status == 0, output
    for path in north.mark.rglob("*.json") if mark_is_lost else ():
        path.unlink()
    federation.sites["north"]._gate = Gate(load_settings(north.root))
    assert federation.budget() == 0.0

    refused = federation.rest(federation.propose("second"))
    reasons = {site["site"]: site["reason"] for site in refused["sites"]}
    assert reasons["north"] == "ledger-behind"
    assert federation.budget() == 0.0

    status, output = run("reconcile", north.root, "--yes")
    assert (status, "not heard yet" in output) == (0, False)  # a lost mark: the hub has answered the refusal
    assert federation.budget() == pytest.approx(spent)
    assert federation.rest(federation.propose("third"))["state"] == "completed"
    assert federation.budget() > spent


def test_a_drained_site_finishes_its_round_and_the_study_goes_on_when_it_is_back(federation: Federation) -> None:
    study = federation.propose("drained", rounds=2)
    database = open_records(federation.north)
    for _ in range(400):
        federation.step()
        if database.execute("SELECT COUNT(*) FROM tasks WHERE kind = 'train'").fetchone()[0]:
            break
    holding.drain(database)
    assert federation.rest(study)["state"] == "running"
    assert not holding.remaining(database)
    assert run("drain", federation.north.root)[0] == 0  # idle already: it does not even need a gate
    waiting = [row["state"] for row in database.execute("SELECT state FROM tasks WHERE state = 'waiting'")]
    assert waiting
    (shown,) = (site for site in federation.hub.researcher.get("/v1/sites") if site["name"] == "north")
    assert shown["activity"] == "paused"
    holding.resume(database)
    assert federation.rest(study)["state"] == "completed"
