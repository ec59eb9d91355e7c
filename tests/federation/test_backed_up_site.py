"""A hospital is backed up, trains, loses its machine and is restored: a real hub, real training, and no budget back.

And drained: the round that was begun is finished and counted, the next waits until the site goes on.
"""

from pathlib import Path

import pytest

from site_node.governance import holding
from site_node.governance.gate import Gate
from site_node.governance.records import open_records
from site_node.settings import load_settings
from tests.fakes.site_command import run
from tests.federation.two_hospitals import TwoHospitals


@pytest.mark.parametrize("mark_is_lost", [False, True])
def test_a_restored_site_trains_again_only_once_it_has_paid_for_what_it_forgot(
    two_hospitals: TwoHospitals, tmp_path: Path, mark_is_lost: bool
) -> None:
    key, backup, north = tmp_path / "key", tmp_path / "north.backup", two_hospitals.north
    key.write_bytes(b"k" * 32)
    assert run("backup", north.root, backup, "--key-file", key)[0] == 0
    assert two_hospitals.rest(two_hospitals.propose("first"))["state"] == "completed"
    spent = two_hospitals.budget()["epsilon"]
    assert spent > 0

    two_hospitals.sites["north"]._gate.close()
    assert run("restore", north.root, backup, "--key-file", key)[0] == 1  # what is there is newer
    status, output = run("restore", north.root, backup, "--key-file", key, "--force")
    assert status == 0, output
    for path in north.mark.rglob("*.json") if mark_is_lost else ():
        path.unlink()
    two_hospitals.sites["north"]._gate = Gate(load_settings(north.root))
    assert two_hospitals.budget()["epsilon"] == 0.0

    refused = two_hospitals.rest(two_hospitals.propose("second"))
    reasons = {site["site"]: site["reason"] for site in refused["sites"]}
    assert reasons["north"] == "ledger-behind"
    assert two_hospitals.budget()["epsilon"] == 0.0

    status, output = run("reconcile", north.root, "--yes")
    assert (status, "not heard yet" in output) == (0, False)  # a lost mark: the hub has answered the refusal
    assert two_hospitals.budget()["epsilon"] == pytest.approx(spent)
    assert two_hospitals.rest(two_hospitals.propose("third"))["state"] == "completed"
    assert two_hospitals.budget()["epsilon"] > spent


def test_a_drained_site_finishes_its_round_and_the_study_goes_on_when_it_is_back(two_hospitals: TwoHospitals) -> None:
    study = two_hospitals.propose("drained", rounds=2)
    database = open_records(two_hospitals.north)
    for _ in range(400):
        two_hospitals.step()
        if database.execute("SELECT COUNT(*) FROM tasks WHERE kind = 'train'").fetchone()[0]:
            break
    holding.drain(database)
    assert two_hospitals.rest(study)["state"] == "running"
    assert not holding.remaining(database)
    assert run("drain", two_hospitals.north.root)[0] == 0  # idle already: it does not even need a gate
    waiting = [row["state"] for row in database.execute("SELECT state FROM tasks WHERE state = 'waiting'")]
    assert waiting
    (shown,) = (site for site in two_hospitals.hub.researcher.get("/v1/sites") if site["name"] == "north")
    assert shown["activity"] == "paused"
    holding.resume(database)
    assert two_hospitals.rest(study)["state"] == "completed"
