"""A hundred kills at random moments over a run of studies that share the hospitals, and what must hold afterwards.

The seed is printed and can be given again (WARDROUND_FAULTS_SEED); so can the number of kills (WARDROUND_FAULTS_KILLS).
Processes are killed with SIGKILL, as a machine out of memory would; the demo's supervisor starts them again, as systemd
would. The moments are random on purpose: the tests that kill between two named steps stand beside the code they test.
"""

import json
import os
import random
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from compose.errors import DemoError
from compose.person import HubSilentError, Person
from compose.processes import Backoff
from protocol.study import parse_study
from tests.fakes.demo_run import SMALL_STUDY, DemoRun
from tests.faults.invariants import (
    assert_audit_whole,
    assert_counted_once,
    assert_egress_verified,
    assert_ledgers_cover_what_left,
    assert_versions_whole,
    rows,
)

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
ROUNDS = 5
PRIVACY = {"epsilon": 1.0, "delta": 1e-4}  # small, so that many studies fit a patient's lifetime
AT_ONCE = 2
MOST_WHILE_ANOTHER_WAITS = 3
"""So many rounds, of five, a study may finish while another that trains too finishes none."""
LONGEST_PAUSE_SECONDS = 4.0
# A supervisor gives up on what dies again and again after short lives, as a hospital would: none here is that short.
PEACE_SECONDS = Backoff().healthy_seconds + Backoff().most_seconds + 1.0
END_SECONDS = 900.0
LONGEST_WITHOUT_A_KILL_SECONDS = 120.0


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

    @property
    def hub(self) -> Path:
        return self.run.folder / "hub" / "hub.sqlite"

    @property
    def sites(self) -> dict[str, Path]:
        return {site: self.run.folder / "sites" / site for site in SITES}

    def go(self) -> None:
        begun = time.monotonic()
        while self.killed.total() < KILLS:
            last = max(self.last.values(), default=begun)
            assert self.run.process.poll() is None, f"the demo ended itself\n{self.run.output}"
            quiet = time.monotonic() - last
            assert quiet < LONGEST_WITHOUT_A_KILL_SECONDS, f"no process is there to be killed\n{self.run.output}"
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
    assert_counted_once(studies.hub)


def test_no_version_is_lost_or_doubled(studies: StudyRun) -> None:
    assert_versions_whole(studies.hub, ROUNDS)


def test_studies_that_share_the_sites_progress_side_by_side(studies: StudyRun) -> None:
    ends: dict[str, list[float]] = defaultdict(list)
    query = "SELECT study, ended_at FROM rounds WHERE state = 'complete' ORDER BY ended_at"
    for digest, ended_at in rows(studies.hub, query):
        ends[digest].append(ended_at)  # the first is round 0's: from then on the sites train
    waits = [(digest, gap) for digest, times in ends.items() for gap in pairwise(times)]
    for digest, (since, until) in waits:
        others = {other: sum(since < time < until for time in times) for other, times in ends.items()}
        others.pop(digest)
        assert max(others.values()) <= MOST_WHILE_ANOTHER_WAITS, f"{digest} got no round while others got {others}"


def test_the_ledgers_never_count_less_than_what_left(studies: StudyRun) -> None:
    assert_ledgers_cover_what_left(studies.hub, studies.sites, ROUNDS)


def test_what_left_each_hospital_is_what_the_hub_confirms(studies: StudyRun) -> None:
    assert_egress_verified(studies.sites.values())


def test_the_audit_log_still_holds_together(studies: StudyRun) -> None:
    assert_audit_whole(studies.hub)
