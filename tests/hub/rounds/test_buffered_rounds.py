"""Buffered rounds: a version is made of whatever has come, stale updates count less, and each exactly once."""

import random
from collections import Counter
from math import sqrt
from typing import Any

import numpy as np
import pytest

from hub.registry.lineage import read_lineage
from hub.rounds.closing import Standing, Verdict, buffered_verdict
from hub.rounds.deadlines import tick
from hub.rounds.waiting_updates import weight_of_age
from hub.storage import round_stores, stores
from protocol.messages import Reason, RoundTask, TaskCancelled, TaskKind
from protocol.study import StudySpec
from tests.hub.conftest import Clock
from tests.hub.rounds.bench import Bench, filled, study_of

HOUR = 3600.0
pytestmark = pytest.mark.both_databases


def buffered(rounds: int = 3, **changes: Any) -> StudySpec:
    pace = {"mode": "buffered", "buffer": 2, **changes.pop("pace", {})}
    return study_of(rounds=rounds, pace=pace, strategy={"weighting": "equal"}, **changes)


def task_of(bench: Bench, site: str) -> RoundTask:
    (task,) = [task for task in bench.tasks(TaskKind.TRAIN) if task.site == site]
    return task


def training(bench: Bench) -> dict[str, tuple[int, int]]:
    """Return for each site that trains the round and the version of its task."""
    return {t.site: (t.round, t.base.number) for t in bench.tasks(TaskKind.TRAIN) if t.base is not None}


def send(bench: Bench, site: str, value: float) -> None:
    bench.update(task_of(bench, site), filled(value))


def value_of(bench: Bench, version: int) -> float:
    values = np.concatenate([array.ravel() for array in bench.weights(version).values()])
    assert np.ptp(values) == 0
    return float(values[0])


def test_a_full_buffer_makes_a_version_and_the_slow_site_goes_on(bench: Bench) -> None:
    bench.begin(buffered())
    assert training(bench) == {"anna": (1, 0), "bela": (1, 0), "clara": (1, 0)}
    send(bench, "anna", 1.0)
    assert training(bench) == {"bela": (1, 0), "clara": (1, 0)}  # anna has had her task of this round
    send(bench, "bela", 3.0)
    assert bench.close()
    assert value_of(bench, 1) == 2.0
    assert training(bench) == {"anna": (2, 1), "bela": (2, 1), "clara": (1, 0)}
    assert bench.mail(bench.hospital("clara"), TaskCancelled) == []

    send(bench, "anna", 1.0)
    send(bench, "clara", 2 * sqrt(2))  # one version old: times 1 / sqrt(2)
    bench.close()
    assert value_of(bench, 2) == pytest.approx(2.0 + (1.0 + 2.0) / 2, rel=1e-6)
    assert training(bench) == {"anna": (3, 2), "bela": (2, 1), "clara": (3, 2)}


def test_a_site_that_is_ready_while_the_buffer_has_room_is_asked_at_once(bench: Bench) -> None:
    bench.begin(buffered())
    send(bench, "anna", 1.0)
    send(bench, "bela", 1.0)
    bench.close()
    send(bench, "clara", 1.0)
    assert training(bench) == {"anna": (2, 1), "bela": (2, 1), "clara": (2, 1)}


def test_the_round_s_view_shows_who_trains_on_which_version_and_what_waits(bench: Bench) -> None:
    bench.begin(buffered())
    send(bench, "anna", 1.0)
    send(bench, "bela", 1.0)
    bench.close()
    send(bench, "anna", 1.0)
    view = bench.round(2)
    assert view["updates_waiting"] == 1
    assert [(s["site"], s["task_round"], s["train_state"]) for s in view["sites"]] == [
        ("anna", 2, "accepted"),
        ("bela", 2, "delivered"),
        ("clara", 1, "delivered"),
    ]
    send(bench, "clara", 1.0)
    bench.close()
    (clara,) = [s for s in bench.round(1)["sites"] if s["site"] == "clara"]
    assert (clara["counted_in"], clara["staleness"]) == (2, 1)


def test_an_update_that_comes_during_the_close_counts_in_the_next(bench: Bench) -> None:
    bench.begin(buffered())
    clara = task_of(bench, "clara")
    send(bench, "anna", 1.0)
    send(bench, "bela", 1.0)
    assert bench.round(1)["state"] == "aggregating"
    bench.update(clara, filled(2 * sqrt(2)))
    bench.close()
    assert value_of(bench, 1) == 1.0
    send(bench, "anna", 4.0)
    bench.close()
    assert value_of(bench, 2) == pytest.approx(1.0 + (4.0 + 2.0) / 2, rel=1e-6)


def test_the_lineage_says_how_stale_each_update_was(bench: Bench) -> None:
    bench.begin(buffered())
    send(bench, "anna", 1.0)
    send(bench, "bela", 1.0)
    bench.close()
    send(bench, "clara", 1.0)
    send(bench, "bela", 1.0)
    bench.close()
    with bench.services.reading() as session:
        lineage = read_lineage(stores.version(session, bench.study.digest, 2).lineage)
    assert [(p["site"], p["staleness"]) for p in lineage["participants"]] == [("bela", 0), ("clara", 1)]


def test_an_update_that_would_be_too_stale_is_not_waited_for(bench: Bench) -> None:
    bench.begin(buffered(pace={"maximum_staleness": 1}))
    late = task_of(bench, "clara")
    for _ in range(2):
        send(bench, "anna", 1.0)
        send(bench, "bela", 1.0)
        bench.close()
    assert [m.task_id for m in bench.mail(bench.hospital("clara"), TaskCancelled)] == [late.task_id]
    assert training(bench)["clara"] == (3, 2)
    receipt = bench.receipt(bench.update(late, filled(9.0)))
    assert not receipt.accepted


def test_with_no_staleness_allowed_each_version_is_of_its_own_round(bench: Bench) -> None:
    bench.begin(buffered(pace={"maximum_staleness": 0}))
    send(bench, "anna", 1.0)
    send(bench, "bela", 1.0)
    bench.close()
    assert training(bench) == {"anna": (2, 1), "bela": (2, 1), "clara": (2, 1)}


def test_evaluations_do_not_hold_up_the_next_round(bench: Bench) -> None:
    bench.begin(buffered())
    send(bench, "anna", 1.0)
    send(bench, "bela", 1.0)
    bench.close()
    assert [(r["number"], r["state"]) for r in bench.rounds()][1:] == [(1, "evaluating"), (2, "training")]
    send(bench, "anna", 1.0)
    send(bench, "bela", 1.0)
    bench.close()
    assert [(r["number"], r["state"]) for r in bench.rounds()][1:] == [
        (1, "evaluating"),
        (2, "evaluating"),
        (3, "training"),
    ]
    bench.report_all()
    assert [r["state"] for r in bench.rounds()] == ["complete", "complete", "complete", "training"]


def test_the_study_ends_once_its_last_version_is_judged_and_nobody_trains_in_vain(bench: Bench) -> None:
    bench.begin(buffered(rounds=1))
    send(bench, "anna", 1.0)
    send(bench, "bela", 1.0)
    assert training(bench) == {}
    bench.close()
    assert bench.view()["state"] == "running"
    bench.report_all()
    assert (bench.view()["state"], bench.view()["final_version"]) == ("completed", 1)


def test_a_site_that_cannot_train_is_left_out_of_this_version_only(bench: Bench) -> None:
    bench.begin(buffered())
    bench.refuse(task_of(bench, "anna"), Reason.OUT_OF_MEMORY)
    send(bench, "bela", 1.0)
    send(bench, "clara", 3.0)
    bench.close()
    assert value_of(bench, 1) == 2.0
    assert training(bench)["anna"] == (2, 1)


def test_fewer_updates_make_a_version_if_nobody_else_trains_or_the_deadline_has_passed(
    bench: Bench, clock: Clock
) -> None:
    bench.begin(buffered(participants={"minimum_sites": 3}, pace={"buffer": 3}))
    send(bench, "anna", 1.0)
    send(bench, "bela", 1.0)
    assert tick(bench.services) == 0
    clock.now += HOUR
    assert tick(bench.services) == 1
    bench.close()
    assert training(bench) == {"anna": (2, 1), "bela": (2, 1), "clara": (1, 0)}
    bench.refuse(task_of(bench, "clara"))  # she is asked again at once, on the newest version
    assert training(bench)["clara"] == (2, 1)
    bench.refuse(task_of(bench, "clara"))
    send(bench, "anna", 1.0)
    send(bench, "bela", 1.0)
    assert bench.round(2)["state"] == "aggregating"


def test_a_round_that_nobody_can_train_in_fails(bench: Bench) -> None:
    bench.begin(buffered())
    for task in bench.tasks(TaskKind.TRAIN):
        bench.refuse(task)
    assert bench.round(1)["state"] == "failed"
    assert bench.view()["state"] == "failed"


def test_a_site_that_withdraws_is_asked_no_more_and_the_others_go_on(bench: Bench) -> None:
    bench.begin(buffered())
    hospital = bench.hospital("clara")
    bench.say(hospital, hospital.approval(bench.study.digest, "withdrawn"))
    send(bench, "anna", 1.0)
    send(bench, "bela", 1.0)
    bench.close()
    assert set(training(bench)) == {"anna", "bela"}


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_order_each_accepted_update_counts_once_and_no_site_is_asked_twice_at_a_time(
    bench: Bench, seed: int
) -> None:
    """Three sites of random speeds and moods; closes that come late, come twice or are killed before their commit."""
    chance = random.Random(seed)  # noqa: S311 - a schedule, no secret
    bench.begin(buffered(rounds=5, pace={"maximum_staleness": 2}, privacy={"epsilon": None, "spare_tasks": 3}))
    for _ in range(400):
        if bench.view()["state"] != "running":
            break
        waiting = bench.tasks(TaskKind.TRAIN)
        assert max(Counter(task.site for task in waiting).values(), default=0) <= 1
        act(bench, chance, waiting)
    assert bench.view()["state"] == "completed"
    with bench.services.reading() as session:
        updates = round_stores.updates_of_study(session, bench.study.digest)
        tasks = round_stores.tasks_of_study(session, bench.study.digest)
        lineages = [read_lineage(v.lineage) for v in stores.versions(session, bench.study.digest)]
    counted = [(p["site"], p["task_digest"]) for lineage in lineages for p in lineage["participants"]]
    accepted = {(t.site, t.digest) for t in tasks if t.kind != TaskKind.EVALUATE and t.state == "accepted"}
    assert len(counted) == len(set(counted)) == len(updates)
    assert set(counted) == accepted
    assert all(update.counted_in == update.taken_in for update in updates)
    assert all(update.staleness <= 2 for update in updates)
    assert len(lineages) == 6


def act(bench: Bench, chance: random.Random, waiting: list[RoundTask]) -> None:
    """Let one thing happen: an answer, a report, a close."""
    speeds = {"anna": 10, "bela": 5, "clara": 1}
    what = chance.random()
    if what < 0.5 and waiting:
        (task,) = chance.choices(waiting, [speeds[task.site] for task in waiting])
        if chance.random() < 0.1 and len(waiting) > 1:
            bench.refuse(task)
        else:
            bench.update(task, filled(chance.uniform(-1, 1)))
    elif what < 0.7 and bench.queue.items:
        bench.close()
        if chance.random() < 0.3:
            assert not bench.close()
    elif what < 0.9 and (reports := bench.tasks(TaskKind.EVALUATE)):
        bench.report(chance.choice(reports), [0.9] * 6, [0.1] * 6)


@pytest.mark.parametrize(
    ("accepted", "waiting", "overdue", "verdict"),
    [
        (2, 2, False, Verdict.WAIT),
        (3, 1, False, Verdict.CLOSE),
        (2, 2, True, Verdict.CLOSE),
        (1, 3, True, Verdict.WAIT),
        (2, 0, False, Verdict.CLOSE),
        (1, 0, False, Verdict.FAIL),
    ],
)
def test_four_sites_with_a_buffer_of_three_and_a_quorum_of_half(
    accepted: int, waiting: int, overdue: bool, verdict: Verdict
) -> None:
    assert buffered_verdict(Standing(4, accepted, waiting, overdue), buffer=3, quorum=0.5) is verdict


def test_the_weight_falls_with_age_as_the_study_says() -> None:
    assert weight_of_age(0, 0.5) == 1.0
    assert weight_of_age(3, 0.5) == 0.5
    assert weight_of_age(3, 1.0) == 0.25
    assert weight_of_age(3, 0.0) == 1.0
