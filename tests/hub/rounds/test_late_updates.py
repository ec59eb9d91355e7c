"""Late updates: refused, or counted once in the next round, as the study says."""

from math import sqrt
from typing import Any

import numpy as np
import pytest

from hub.rounds.deadlines import tick
from hub.rounds.training_rounds import state_after
from hub.storage import round_stores, stores
from protocol.messages import TaskCancelled, TaskKind
from tests.hub.conftest import Clock
from tests.hub.rounds.bench import Bench, filled, study_of

HOUR = 3600.0
pytestmark = pytest.mark.both_databases


def folding(rounds: int = 3, **changes: Any) -> Any:
    return study_of(rounds=rounds, strategy={"weighting": "equal"}, participants={"late": "fold"}, **changes)


def close_without_clara(bench: Bench, clock: Clock, value: float = 1.0) -> None:
    """Let anna and bela answer, and the deadline pass."""
    for task in bench.tasks(TaskKind.TRAIN):
        if task.site != "clara":
            bench.update(task, filled(value))
    clock.now += HOUR
    tick(bench.services)
    bench.close()


def names(bench: Bench) -> set[tuple[str, int]]:
    return {(task.site, task.round) for task in bench.tasks(TaskKind.TRAIN)}


def test_a_late_update_is_folded_into_the_next_round_with_less_weight(bench: Bench, clock: Clock) -> None:
    bench.begin(folding())
    (clara,) = [task for task in bench.tasks(TaskKind.TRAIN) if task.site == "clara"]
    close_without_clara(bench, clock)
    bench.report_all()
    assert bench.mail(bench.hospital("clara"), TaskCancelled) == []
    assert names(bench) == {("anna", 2), ("bela", 2), ("clara", 1)}

    assert bench.receipt(bench.update(clara, filled(2 * sqrt(2)))).accepted
    for task in bench.tasks(TaskKind.TRAIN):
        bench.update(task, filled(2.0))
    bench.close()
    np.testing.assert_allclose(bench.weights(2)["bias"], 1.0 + (2.0 + 2.0 + 2.0) / 3, rtol=1e-6)
    with bench.services.reading() as session:
        updates = round_stores.updates_of_study(session, bench.study.digest)
    found = {(u.site, u.round, u.counted_in, u.staleness) for u in updates if u.site == "clara"}
    assert found == {("clara", 1, 2, 1)}


def test_a_folded_update_is_weighed_with_the_noise_of_its_own_round(bench: Bench, clock: Clock) -> None:
    # A cosine over 3 rounds: round 2 has 3/4 of round 1's rate, so 9/16 of its noise. Equal updates: the weights go
    # with patients^2 / noise, and the late one of round 1 counts with 60^2 where the others have 10^2 and 30^2 x 16/9.
    training = {"local_steps": 2, "sampling_rate": 0.5, "learning_rate": 0.5, "schedule": "cosine"}
    privacy = {"epsilon": 8.0, "delta": 1e-4}
    terms = {"late": "fold", "training_patients": 100}
    bench.begin(
        study_of(rounds=3, strategy={"weighting": "noise"}, training=training, privacy=privacy, participants=terms)
    )
    (clara,) = [task for task in bench.tasks(TaskKind.TRAIN) if task.site == "clara"]
    close_without_clara(bench, clock)
    bench.report_all()
    assert bench.receipt(bench.update(clara, filled(1.0))).accepted
    for task in bench.tasks(TaskKind.TRAIN):
        bench.update(task, filled(1.0))
    bench.close()
    with bench.services.reading() as session:
        numbers = state_after(stores.newest_version(session, bench.study.digest)).numbers
    counts = {"anna": 100 * 16 / 9, "bela": 900 * 16 / 9, "clara": 3600.0}
    for site, count in counts.items():
        factor = 1 / sqrt(2) if site == "clara" else 1.0  # one version old
        assert numbers[f"share.{site}"] == pytest.approx(factor * count / sum(counts.values()))


def test_one_that_comes_between_two_rounds_is_folded_too_and_its_site_is_asked_again(
    bench: Bench, clock: Clock
) -> None:
    bench.begin(folding())
    (clara,) = [task for task in bench.tasks(TaskKind.TRAIN) if task.site == "clara"]
    close_without_clara(bench, clock)
    assert bench.round()["state"] == "evaluating"
    assert bench.receipt(bench.update(clara, filled(sqrt(2)))).accepted
    bench.report_all()
    assert names(bench) == {("anna", 2), ("bela", 2), ("clara", 2)}
    for task in bench.tasks(TaskKind.TRAIN):
        bench.update(task, filled(1.0))
    bench.close()
    np.testing.assert_allclose(bench.weights(2)["bias"], 1.0 + (1.0 + 1.0 + 1.0 + 1.0) / 4, rtol=1e-6)


def test_after_one_more_round_it_is_refused(bench: Bench, clock: Clock) -> None:
    bench.begin(folding())
    (clara,) = [task for task in bench.tasks(TaskKind.TRAIN) if task.site == "clara"]
    for _ in range(2):
        close_without_clara(bench, clock)
        bench.report_all()
    assert [m.task_id for m in bench.mail(bench.hospital("clara"), TaskCancelled)] == [clara.task_id]
    assert not bench.receipt(bench.update(clara, filled(1.0))).accepted
    assert names(bench) == {("anna", 3), ("bela", 3), ("clara", 3)}


def test_the_last_round_waits_for_nobody_who_would_be_counted_in_none(bench: Bench, clock: Clock) -> None:
    bench.begin(folding(rounds=1))
    close_without_clara(bench, clock)
    assert len(bench.mail(bench.hospital("clara"), TaskCancelled)) == 1
    bench.report_all()
    assert bench.view()["state"] == "completed"


def test_a_late_site_belongs_to_the_quorum_of_the_round_that_waits_for_it(bench: Bench, clock: Clock) -> None:
    bench.begin(folding())
    close_without_clara(bench, clock)
    bench.report_all()
    for task in bench.tasks(TaskKind.TRAIN):
        if task.site != "clara":
            bench.update(task, filled(1.0))
    assert bench.round()["state"] == "training"  # clara's old task may still be answered before the deadline
    clock.now += HOUR
    tick(bench.services)
    assert bench.round()["state"] == "aggregating"


@pytest.mark.parametrize("late", ["refuse", "fold"])
def test_a_late_update_counts_at_most_once_and_only_where_the_study_says(bench: Bench, clock: Clock, late: str) -> None:
    bench.begin(study_of(rounds=2, strategy={"weighting": "equal"}, participants={"late": late}))
    (clara,) = [task for task in bench.tasks(TaskKind.TRAIN) if task.site == "clara"]
    close_without_clara(bench, clock)
    state = bench.update(clara, filled(5.0))
    assert bench.receipt(state).accepted == (late == "fold")
    assert bench.receipt(bench.update(clara, filled(5.0))).accepted == (late == "fold")  # sent again: the same answer
    bench.report_all()
    for task in bench.tasks(TaskKind.TRAIN):
        bench.update(task, filled(1.0))
    bench.close()
    with bench.services.reading() as session:
        updates = round_stores.updates_taken(session, bench.study.digest, 2)
    assert [(u.site, u.round) for u in updates].count(("clara", 1)) == (late == "fold")
