"""Processes killed in the middle of rounds: the study ends, and every accepted update is counted exactly once."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from protocol.signing import read_unverified
from tests.fakes.demo_run import SMALL_STUDY, DemoRun

pytestmark = [pytest.mark.xdist_group("demo"), pytest.mark.timeout(900)]
ROUNDS = 6
# In round n this process is killed, once the round has been opened for training.
VICTIMS = {
    1: "st-anna worker",
    2: "harbour agent",
    3: "hub api",
    4: "hub worker",
    5: "northfield gate",
    6: "st-anna redis",
}
STUDY: dict[str, Any] = {**SMALL_STUDY, "rounds": ROUNDS, "training": {**SMALL_STUDY["training"], "local_steps": 12}}


def opened(run: DemoRun, number: int) -> bool:
    return (number,) in run.rows("SELECT number FROM rounds WHERE state != 'initialising'")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRun]:
    """A demo in which each round lost a process."""
    started = DemoRun.start(tmp_path_factory.mktemp("faults"), "--exit", study=STUDY)
    try:
        for number, role in VICTIMS.items():
            started.wait_until(partial(opened, started, number), 240)
            started.kill(role)
        assert started.ended(400) == 0, started.output
        yield started
    finally:
        started.stop()


def test_the_study_completes_although_each_round_lost_a_process(run: DemoRun) -> None:
    assert run.report["study"]["state"] == "completed"
    assert [entry["state"] for entry in run.report["rounds"]] == ["complete"] * ROUNDS


def test_every_accepted_update_is_counted_exactly_once(run: DemoRun) -> None:
    updates = run.rows("SELECT round, site, counted_in FROM updates WHERE round > 0 ORDER BY round, site")
    assert len(updates) == len({(number, site) for number, site, _ in updates}) == 3 * ROUNDS
    assert all(counted == number for number, _, counted in updates)
    for number, envelope in run.rows("SELECT number, lineage FROM versions WHERE number > 0"):
        sites = [part["site"] for part in json.loads(read_unverified(envelope))["participants"]]
        assert sorted(sites) == ["harbour", "northfield", "st-anna"], f"version {number}"


def test_no_site_trained_a_task_into_two_different_updates(run: DemoRun) -> None:
    accepted = run.rows("SELECT COUNT(*), COUNT(DISTINCT payload_digest) FROM uploads WHERE state = 'accepted'")
    assert accepted == [(3 * ROUNDS + 1, 3 * ROUNDS + 1)]


def test_the_audit_log_still_holds_together(run: DemoRun) -> None:
    from hub.audit.verify import read_sqlite, verify_entries

    assert verify_entries(read_sqlite(run.folder / "hub" / "hub.sqlite")).ok
