"""A hundred kills at random moments over a run of studies that share the hospitals, and what must hold afterwards.

The seed is printed and can be given again (WARDROUND_FAULTS_SEED); so can the number of kills (WARDROUND_FAULTS_KILLS).
Processes are killed with SIGKILL, as a machine out of memory would; the demo's supervisor starts them again, as systemd
would. The moments are random on purpose: the tests that kill between two named steps stand beside the code they test.
"""

import json
import os
import random
import secrets
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from compose.errors import DemoError
from compose.person import HubSilentError, Person
from hub.audit.verify import read_sqlite, verify_entries
from protocol.signing import read_unverified
from protocol.study import parse_study
from tests.fakes.demo_run import SMALL_STUDY, DemoRun

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo"), pytest.mark.timeout(3600)]

SITES = ("harbour", "northfield", "st-anna")
ROLES = (
    "hub api",
    "hub worker",
    "hub redis",
    *(f"{s} {p}" for s in SITES for p in ("gate", "agent", "worker", "redis")),
)
KILLS = int(os.environ.get("WARDROUND_FAULTS_KILLS", "100"))
SEED = int(os.environ.get("WARDROUND_FAULTS_SEED", secrets.randbelow(1 << 32)))
ROUNDS = 3
PRIVACY = {"epsilon": 1.0, "delta": 1e-4}  # small, so that many studies fit a patient's lifetime
AT_ONCE = 2
LONGEST_PAUSE_SECONDS = 4.0
# A supervisor gives up on what dies again and again within seconds; a hospital's would as well.
PEACE_SECONDS = 15.0
END_SECONDS = 900.0


def study_data(number: int) -> dict[str, Any]:
    return {**SMALL_STUDY, "name": f"faults-{number}", "seed": number, "rounds": ROUNDS, "privacy": PRIVACY}


class StudyRun:
    """Keeps some studies running at once until enough processes were killed, then waits for their end."""

    def __init__(self, run: DemoRun) -> None:
        self.run = run
        self.chance = random.Random(SEED)  # noqa: S311 - the moments of kills are no secret
        self.killed: Counter[str] = Counter()
        self.last: dict[str, float] = {}
        self.proposed: list[str] = []

    def go(self) -> None:
        while self.killed.total() < KILLS:
            self._keep_studies_running()
            self._kill_one()
            time.sleep(self.chance.uniform(0.0, LONGEST_PAUSE_SECONDS))
        self.run.wait_until(lambda: not self._running(), END_SECONDS)

    def _keep_studies_running(self) -> None:
        if len(self._running()) >= AT_ONCE:
            return
        data = study_data(len(self.proposed) + 1)
        study = parse_study(data)
        try:
            person = self._researcher()
            person.post("/v1/studies", content=study.canonical_bytes())
            person.close()
        except HubSilentError:
            return  # the API has just been killed
        except DemoError as error:
            # The answer to the first attempt may have died with the API; the study is there all the same.
            if "name" not in str(error):
                raise
        self.proposed.append(study.digest)

    def _researcher(self) -> Person:
        ports = json.loads((self.run.folder / "demo.json").read_text())["ports"]
        words = json.loads((self.run.folder / "people.json").read_text())
        return Person(f"http://127.0.0.1:{ports['hub']}", "researcher", words["researcher"])

    def _running(self) -> list[str]:
        ended = {digest for (digest,) in self.run.rows("SELECT digest FROM studies WHERE ended_at IS NOT NULL")}
        return [digest for digest in self.proposed if digest not in ended]

    def _kill_one(self) -> None:
        now = time.monotonic()
        rested = [role for role in ROLES if now - self.last.get(role, 0.0) > PEACE_SECONDS]
        if not rested:
            return
        role = self.chance.choice(rested)
        if self.run.pid(role) is None:
            return
        try:
            self.run.kill(role)
        except ProcessLookupError:
            return  # it is being started again
        self.killed[role] += 1
        self.last[role] = now


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudyRun]:
    """A demo that went through all of it."""
    print(f"WARDROUND_FAULTS_SEED={SEED} WARDROUND_FAULTS_KILLS={KILLS}")  # noqa: T201 - to be repeated by a person
    run = DemoRun.start(tmp_path_factory.mktemp("random-kills"), study=study_data(0))
    try:
        run.wait_until(lambda: run.rows("SELECT number FROM rounds"), 240)
        every = StudyRun(run)
        every.go()
        print(dict(every.killed), f"{len(every.proposed)} studies")  # noqa: T201
        yield every
    finally:
        run.stop()


def test_enough_processes_of_each_kind_were_killed(studies: StudyRun) -> None:
    assert studies.killed.total() >= KILLS
    kinds = Counter(role.split()[-1] for role in studies.killed.elements())
    assert set(kinds) == {"api", "worker", "redis", "gate", "agent"}


def test_all_studies_finish(studies: StudyRun) -> None:
    states = studies.run.rows("SELECT name, state, reason FROM studies")
    assert len(states) == len(studies.proposed) + 1
    assert [row for row in states if row[1] != "completed"] == []


def test_every_accepted_update_is_counted_exactly_once(studies: StudyRun) -> None:
    accepted = studies.run.rows("SELECT study, round, site FROM updates WHERE round > 0")
    assert len(accepted) == len(set(accepted))
    counted = [
        (study, number, part["site"])
        for study, number, envelope in studies.run.rows("SELECT study, number, lineage FROM versions WHERE number > 0")
        for part in json.loads(read_unverified(envelope))["participants"]
    ]
    assert sorted(counted) == sorted(accepted)


def test_no_version_is_lost_or_doubled(studies: StudyRun) -> None:
    versions = studies.run.rows("SELECT study, number FROM versions")
    rounds = {digest: 3 for (digest,) in studies.run.rows("SELECT digest FROM studies")}
    assert Counter(versions) == Counter(
        (digest, number) for digest, most in rounds.items() for number in range(most + 1)
    )


def test_the_ledgers_never_count_less_than_what_left(studies: StudyRun) -> None:
    for site in SITES:
        rows = _site_rows(studies.run, site, "SELECT study, COUNT(*) FROM outputs WHERE kind = 'train' GROUP BY study")
        assert rows, f"nothing left {site}"
        assert all(count <= ROUNDS for _, count in rows)
        charged = studies.run.rows(f"SELECT DISTINCT study FROM ledger_charges WHERE site = '{site}'")  # noqa: S608
        assert {study for study, _ in rows} <= {study for (study,) in charged}


def test_what_left_each_hospital_is_what_the_hub_confirms(studies: StudyRun) -> None:
    for site in SITES:
        command = [sys.executable, "-m", "compose.cli", "site", "egress", str(studies.run.folder / "sites" / site)]
        done = subprocess.run([*command, "--verify"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_audit_log_still_holds_together(studies: StudyRun) -> None:
    assert verify_entries(read_sqlite(studies.run.folder / "hub" / "hub.sqlite")).ok


def _site_rows(run: DemoRun, site: str, query: str) -> list[tuple[Any, ...]]:
    path: Path = run.folder / "sites" / site / "gate" / "gate.sqlite"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
        return database.execute(query).fetchall()
