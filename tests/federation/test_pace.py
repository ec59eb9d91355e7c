"""Uneven hospitals with real gates and agents: buffered rounds, late updates, warm start; killed and restarted."""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hub.registry.lineage import read_lineage
from hub.storage import round_stores, stores
from protocol.messages import TaskKind
from protocol.site_sampling import drawn_sites
from site_node.governance.records import open_records
from site_node.orders import read_order
from tests.fakes.handing_site import HandingSite, masked_study
from tests.federation.masked_federation import NAMES, MaskedFederation, masked_federation

CLEAR = {"method": "none"}
BUFFERED: dict[str, Any] = {
    "rounds": 6,
    "pace": {"mode": "buffered", "buffer": 3, "maximum_staleness": 4},
    "secure_aggregation": CLEAR,
    "privacy": {"epsilon": None, "spare_tasks": 2},
}
MOST_STEPS = 400


class KilledError(Exception):
    """The gate is killed here."""


class SlowWorker:
    """Does a site's training only after so many steps of everybody; counting and judging at once."""

    def __init__(self, site: HandingSite, steps: int) -> None:
        self._site, self._steps, self._at_once = site, steps, site.work
        self._begun: dict[str, int] = {}
        site.work = self.begin  # type: ignore[method-assign]
        site.start()

    def begin(self, task_id: str) -> None:
        order = read_order(self._site.settings.paths, task_id)
        if order is not None and order.kind == "train":
            self._begun.setdefault(task_id, 0)
        else:
            self._at_once(task_id)

    def step(self) -> None:
        for task_id in list(self._begun):
            self._begun[task_id] += 1
            if self._begun[task_id] >= self._steps:
                del self._begun[task_id]
                if read_order(self._site.settings.paths, task_id) is not None:  # not cancelled meanwhile
                    self._at_once(task_id)


def run(
    federation: MaskedFederation, slow: SlowWorker | None = None, disturb: Callable[[], None] = lambda: None
) -> None:
    """Let everybody act until the study has ended."""
    for _ in range(MOST_STEPS):
        if federation.state()[0] in ("completed", "failed"):
            return
        disturb()
        if slow is not None:
            slow.step()
        try:
            federation.step()
        except KilledError:
            for site in federation.sites:
                site.start()
    raise AssertionError(f"the study never ends: {federation.rounds()[-1]}")


def assert_each_update_counts_once(federation: MaskedFederation) -> Counter[str]:
    """Check the one rule of rounds; return how many updates of each site were counted."""
    with federation.services.reading() as session:
        digest = federation.study.digest
        accepted = {(u.site, u.round) for u in round_stores.updates_of_study(session, digest)}
        uncounted = [u for u in round_stores.updates_of_study(session, digest) if u.counted_in is None]
        lineages = [read_lineage(v.lineage) for v in stores.versions(session, digest)]
        by_digest = {t.digest: (t.site, t.round) for t in round_stores.tasks_of_study(session, digest)}
    assert uncounted == []
    counted = [by_digest[p["task_digest"]] for lineage in lineages for p in lineage["participants"]]
    assert len(counted) == len(set(counted))
    assert set(counted) == accepted
    return Counter(site for site, number in counted if number > 0)


def assert_one_answer_for_each_round(site: HandingSite) -> None:
    with closing(open_records(site.settings.paths)) as database:
        outputs = database.execute("SELECT round, kind, COUNT(*) AS n FROM outputs GROUP BY round, kind").fetchall()
        trained = database.execute("SELECT COUNT(*) FROM inputs WHERE kind = 'train'").fetchone()[0]
    assert all(row["n"] == 1 for row in outputs)
    assert trained <= 8  # rounds and spare tasks: what the ledger would be charged for


def test_a_slow_hospital_holds_nobody_up_and_its_updates_count_once(tmp_path: Path) -> None:
    with masked_federation(tmp_path, 4, held_out=20, **BUFFERED) as federation:
        slow = SlowWorker(federation.site("dora"), steps=12)
        federation.propose()
        run(federation, slow)
        assert federation.state() == ("completed", "")
        counted = assert_each_update_counts_once(federation)
        assert counted["anna"] > counted["dora"]
        for site in federation.sites:
            assert_one_answer_for_each_round(site)
        assert all(r["state"] == "complete" and r["metrics"] is not None for r in federation.rounds())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hub_and_gates_killed_at_any_moment_lose_nothing_and_double_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a schedule, no secret
    kills = 0

    def checkpoint(_: str) -> None:
        nonlocal kills
        if chance.random() < 0.02:
            kills += 1
            raise KilledError

    with masked_federation(tmp_path, 4, held_out=20, **BUFFERED) as federation:
        slow = SlowWorker(federation.site("dora"), steps=9)
        federation.propose()
        for site in federation.sites:
            site.checkpoint = checkpoint

        def disturb() -> None:
            federation.clock.now += 1.0
            if chance.random() < 0.1:
                asked = list(federation.queue.items)
                federation.restart_hub()
                # What was on the queue may be lost with it, or come twice; the clock asks again.
                federation.queue.items[:] = chance.choice([[], asked, [*asked, *asked]])

        run(federation, slow, disturb)
        assert federation.state() == ("completed", "")
        assert kills > 5
        assert_each_update_counts_once(federation)
        for site in federation.sites:
            assert_one_answer_for_each_round(site)


def test_versions_travel_as_differences_in_buffered_rounds_too(tmp_path: Path) -> None:
    transport = {"upload": ["quantise:8"], "download": ["quantise:8"]}
    with masked_federation(tmp_path, 4, held_out=20, **BUFFERED, transport=transport) as federation:
        slow = SlowWorker(federation.site("dora"), steps=12)
        federation.propose()
        run(federation, slow)
        assert federation.state() == ("completed", "")
        assert assert_each_update_counts_once(federation)["dora"] > 0


def test_masks_are_made_among_the_sites_that_a_round_draws(tmp_path: Path) -> None:
    terms = {"minimum_sites": 4, "quorum": 0.5, "sampled": 0.8}
    with masked_federation(tmp_path, 5, rounds=3, participants=terms) as federation:
        federation.propose()
        run(federation)
        assert federation.state() == ("completed", "")
        for number in (1, 2, 3):
            names = [row["site"] for row in federation.rounds()[number]["sites"]]
            assert names == drawn_sites(federation.study.digest, number, NAMES[:5], 4)
            assert {row["train_state"] for row in federation.rounds()[number]["sites"]} == {"accepted"}


def test_a_late_update_is_folded_into_the_next_round(tmp_path: Path) -> None:
    terms = {"late": "fold", "minimum_sites": 3, "quorum": 0.75, "deadline_seconds": 60.0}
    with masked_federation(tmp_path, 4, rounds=4, participants=terms, secure_aggregation=CLEAR) as federation:
        slow = SlowWorker(federation.site("dora"), steps=9)
        federation.propose()

        def disturb() -> None:
            federation.clock.now += 10.0

        run(federation, slow, disturb)
        assert federation.state() == ("completed", "")
        assert_each_update_counts_once(federation)
        with federation.services.reading() as session:
            updates = round_stores.updates_of_study(session, federation.study.digest)
        folded = [(u.round, u.counted_in, u.staleness) for u in updates if u.site == "dora" and u.round != u.counted_in]
        assert folded
        assert all(counted == number + 1 and staleness == 1 for number, counted, staleness in folded)


def test_a_study_goes_on_from_a_version_of_another_at_hospitals_that_approved_its_digest(tmp_path: Path) -> None:
    with masked_federation(tmp_path, 4, secure_aggregation=CLEAR) as federation:
        federation.propose()
        run(federation)
        with federation.services.reading() as session:
            parent = stores.version(session, federation.study.digest, 1).weights_digest
        federation.study = masked_study(4, name="later", secure_aggregation=CLEAR, start={"weights": parent})
        federation.propose()
        run(federation)
        assert federation.state() == ("completed", "")
        with federation.services.reading() as session:
            tasks = round_stores.tasks_of_study(session, federation.study.digest)
            zero, one = stores.versions(session, federation.study.digest)
        assert {task.kind for task in tasks} == {TaskKind.TRAIN}
        assert zero.weights_digest == parent
        assert read_lineage(one.lineage)["parents"] == [parent]
