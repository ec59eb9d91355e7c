"""Clocks that are minutes, hours and days off, at a hospital and at the hub, while studies run; then they are set."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hub.rounds.deadlines import TICK_SECONDS
from protocol.study import parse_study
from tests.benchmarks.rounds_without_training.federation import POLICY
from tests.fakes.walls import missing
from tests.fakes.walls_clocks import Clock, library
from tests.fakes.walls_federation import NAMES, WalledFederation, study_data, walled_federation
from tests.faults.invariants import (
    assert_audit_whole,
    assert_counted_once,
    assert_egress_verified,
    assert_ledgers_cover_what_left,
    assert_versions_whole,
    rows,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400), pytest.mark.xdist_group("walls")]

PARAMETERS = 100_000
ROUNDS = 3
MINUTE, HOUR, DAY = 60.0, 3600.0, 24 * 3600.0
SHORT_ROUND_SECONDS, LONG_ROUND_SECONDS = 30.0, HOUR
APPROVED_FOR_A_DAY = POLICY + "approval_days: 1\n"
CLOCKS = {"hub": ("hub api", "hub worker"), "bela": ("bela agent", "bela worker"), "bela gate": ("bela gate",)}
"""Which processes go by which clock; all others are right."""
WAIT_SECONDS = 400.0


@dataclass
class Skewed:
    """The federation and the clocks that can be set."""

    federation: WalledFederation
    clocks: dict[str, Clock]

    @property
    def hub(self) -> Path:
        return self.federation.hub / "hub.sqlite"

    def propose(self, name: str, deadline_seconds: float) -> str:
        data = study_data(name, 2, ROUNDS)
        data["participants"] |= {"quorum": 0.6, "deadline_seconds": deadline_seconds}
        data["privacy"] = {"epsilon": 1.0, "delta": 1e-5}
        return self.federation.propose(parse_study(data))

    def round_state(self, digest: str, number: int) -> str:
        found = rows(self.hub, "SELECT state FROM rounds WHERE study = ? AND number = ?", digest, number)
        return str(found[0][0]) if found else ""

    def wait_for_round(self, digest: str, number: int) -> None:
        self.federation.wait_until(lambda: self.round_state(digest, number), WAIT_SECONDS, pause=0.05)

    def wait_for_end(self, digest: str) -> None:
        self.federation.wait_until(lambda: self.federation.state(digest)[0] not in ("proposed", "running"), 900)
        assert self.federation.state(digest) == ("completed", "")

    def at_bela(self, digest: str) -> list[tuple[str, str | None]]:
        """What the researcher reads of bela in each training round."""
        found = []
        for one in self.federation.rounds(digest)[1:]:
            seen: dict[str, Any] = next(site for site in one["sites"] if site["site"] == "bela")
            found.append((seen["train_state"], seen["reason"]))
        return found


@pytest.fixture(scope="module")
def skewed() -> Iterator[Skewed]:
    if problem := missing():
        pytest.fail(problem)
    if library() is None:
        pytest.fail("libfaketime cannot be found. Run `make walls` (apt-get install libfaketime).")
    clocks: dict[str, Clock] = {}
    variables: dict[str, dict[str, str]] = {}

    def make(folder: Path, _: object) -> None:
        for name, roles in CLOCKS.items():
            clocks[name] = Clock(folder / f"clock-{name.replace(' ', '-')}")
            clocks[name].set_ahead(0)
            variables.update({role: dict(clocks[name].variables()) for role in roles})

    with walled_federation(PARAMETERS, policy=APPROVED_FOR_A_DAY, prepare=make, variables=variables) as federation:
        yield Skewed(federation, clocks)


@pytest.mark.parametrize(("seconds", "words"), [(12 * MINUTE, "ahead of the hub's"), (-2 * HOUR, "behind the hub's")])
def test_a_hospital_whose_clock_is_off_is_told_by_how_much_and_goes_on_once_it_is_set(
    skewed: Skewed, seconds: float, words: str
) -> None:
    federation, log = skewed.federation, "bela agent"
    digest = skewed.propose(f"site-{words.split()[0]}", SHORT_ROUND_SECONDS)
    skewed.wait_for_round(digest, 1)
    said = len(federation.log(log))
    skewed.clocks["bela"].set_ahead(seconds)
    federation.restart(log)  # it has no token; one that it holds would serve it for a quarter of an hour
    try:
        federation.wait_until(lambda: words in federation.log(log)[said:], WAIT_SECONDS)
        skewed.wait_for_round(digest, 2)  # the others went on without it
        status = federation.site("bela", "status")
        assert status.returncode == 0, status.stderr  # its gate works as ever
    finally:
        skewed.clocks["bela"].set_ahead(0)
    line = next(line for line in federation.log(log)[said:].splitlines() if words in line)
    told = float(line.partition("clock is ")[2].split()[0])
    assert told == pytest.approx(abs(seconds), abs=MINUTE)
    assert "NTP" in line
    skewed.wait_for_end(digest)
    next_one = skewed.propose(f"after-{words.split()[0]}", LONG_ROUND_SECONDS)
    skewed.wait_for_end(next_one)
    assert skewed.at_bela(next_one) == [("accepted", None)] * ROUNDS


def test_a_hub_whose_clock_jumps_past_a_deadline_ends_no_round_below_its_quorum(skewed: Skewed) -> None:
    federation = skewed.federation
    digest = skewed.propose("hub-ahead", LONG_ROUND_SECONDS)
    skewed.wait_for_round(digest, 0)  # anna builds version 0; of the others nobody will answer in round 1
    silent = ("bela worker", "clara worker")
    for role in silent:
        federation.end(role)
    skewed.wait_for_round(digest, 1)

    def overdue() -> bool:
        found = federation.call("GET", f"/v1/studies/{digest}/rounds")[1][1]
        assert found["state"] == "training"
        return str(found["reason"]).startswith("Overdue: 1 of the 2 ")

    federation.wait_until(lambda: rows(skewed.hub, "SELECT 1 FROM updates WHERE study = ? AND round = 1", digest), 120)
    skewed.clocks["hub"].set_ahead(2 * LONG_ROUND_SECONDS)
    try:
        federation.wait_until(overdue, WAIT_SECONDS)
        time.sleep(3 * TICK_SECONDS)  # the hub's own clock has looked at the round more than once
        assert overdue()
    finally:
        skewed.clocks["hub"].set_ahead(0)
        for role in silent:
            federation.start_again(role)
    skewed.wait_for_end(digest)
    assert skewed.at_bela(digest) == [("accepted", None)] * ROUNDS


def test_a_hub_whose_clock_is_set_back_goes_on_with_its_rounds(skewed: Skewed) -> None:
    digest = skewed.propose("hub-behind", LONG_ROUND_SECONDS)
    skewed.wait_for_round(digest, 1)
    skewed.clocks["hub"].set_ahead(-2 * HOUR)
    try:
        skewed.wait_for_end(digest)
    finally:
        skewed.clocks["hub"].set_ahead(0)
    assert skewed.at_bela(digest) == [("accepted", None)] * ROUNDS


def test_an_approval_expires_by_the_hospital_s_own_clock(skewed: Skewed) -> None:
    digest = skewed.propose("expires", LONG_ROUND_SECONDS)
    skewed.wait_for_round(digest, 0)
    skewed.clocks["bela gate"].set_ahead(2 * DAY)
    try:
        skewed.wait_for_end(digest)
    finally:
        skewed.clocks["bela gate"].set_ahead(0)
    assert skewed.at_bela(digest)[-1] == ("refused", "approval-expired")
    others = rows(skewed.hub, "SELECT DISTINCT site FROM updates WHERE study = ? AND round = ?", digest, ROUNDS)
    assert {site for (site,) in others} == set(NAMES) - {"bela"}


def test_nothing_was_counted_twice_lost_or_left_unaccounted(skewed: Skewed) -> None:
    assert_versions_whole(skewed.hub, ROUNDS)
    assert_counted_once(skewed.hub)
    assert_ledgers_cover_what_left(skewed.hub, skewed.federation.sites, ROUNDS)
    assert_egress_verified(skewed.federation.sites.values())
    assert_audit_whole(skewed.hub)
