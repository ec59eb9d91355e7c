"""Deadlines from measured times: the pure rule, and a study whose slow site no longer holds up its quorum."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.rounds.deadlines import tick
from hub.rounds.learned_deadlines import SHORTEST_SECONDS, learned_deadline, usual_seconds
from protocol.messages import TaskKind
from tests.hub.conftest import Clock
from tests.hub.rounds.bench import Bench, filled, study_of

HOUR = 3600.0
SECONDS = st.floats(0.0, 1e6, allow_nan=False)


def test_a_site_measured_too_seldom_has_no_usual_time() -> None:
    assert usual_seconds([]) is None
    assert usual_seconds([10.0, 10.0]) is None
    assert usual_seconds([10.0, 10.0, 10.0]) == 10.0


def test_one_answer_out_of_the_ordinary_changes_little() -> None:
    # Median 11; deviations 1, 0, 1, 0, 989, median 1: 11 + 3 x 1.4826 x 1.
    assert usual_seconds([10.0, 11.0, 12.0, 11.0, 1000.0]) == pytest.approx(11 + 3 * 1.4826)


def test_only_the_last_answers_count() -> None:
    assert usual_seconds([500.0] * 20 + [10.0] * 9) == 10.0


def test_the_deadline_is_the_usual_time_of_the_quorum_and_half_as_much_again() -> None:
    assert learned_deadline([20.0, 10.0, 200.0], needed=2, longest=HOUR) == 30.0
    assert learned_deadline([20.0, 10.0, None], needed=2, longest=HOUR) == 30.0
    assert learned_deadline([20.0, None, None], needed=2, longest=HOUR) == HOUR
    assert learned_deadline([0.1, 0.1, 0.1], needed=2, longest=HOUR) == SHORTEST_SECONDS
    assert learned_deadline([], needed=1, longest=HOUR) == HOUR


@given(st.lists(st.none() | SECONDS, min_size=1, max_size=12), st.data())
def test_a_slower_site_never_moves_the_deadline(usual: list[float | None], data: st.DataObject) -> None:
    needed = data.draw(st.integers(1, len(usual)))
    found = learned_deadline(usual, needed, HOUR)
    assert 0 < found <= HOUR
    assert learned_deadline([*usual, None], needed, HOUR) == found
    slowest = max(1e6 if seconds is None else seconds for seconds in usual)
    assert learned_deadline([*usual, slowest], needed, HOUR) == found


def test_once_times_are_known_the_slow_site_is_left_behind_early(bench: Bench, clock: Clock) -> None:
    bench.begin(study_of(rounds=5, participants={"deadline": "learned", "deadline_seconds": HOUR}))
    for number in range(1, 4):
        assert bench.round()["number"] == number
        assert bench.round()["deadline_at"] - bench.round()["opened_at"] == HOUR
        for seconds, site in ((10.0, "anna"), (10.0, "bela"), (280.0, "clara")):
            clock.now += seconds
            (task,) = [task for task in bench.tasks(TaskKind.TRAIN) if task.site == site]
            bench.update(task, filled(1.0))
        bench.close()
        bench.report_all()
    # anna 10 s, bela 20 s, clara 300 s: two of three make the quorum, and 1.5 x 20 s is the deadline.
    view = bench.round()
    assert view["deadline_at"] - view["opened_at"] == 30.0
    assert (view["deadline_learned"], {s["site"]: s["usual_seconds"] for s in view["sites"]}) == (
        True,
        {"anna": 10.0, "bela": 20.0, "clara": 300.0},
    )
    clock.now += 20.0
    for task in bench.tasks(TaskKind.TRAIN):
        if task.site != "clara":
            bench.update(task, filled(1.0))
    assert tick(bench.services) == 0
    clock.now += 10.0
    assert tick(bench.services) == 1
    assert bench.round()["state"] == "aggregating"


def test_below_the_quorum_a_learned_deadline_closes_nothing(bench: Bench, clock: Clock) -> None:
    bench.begin(study_of(rounds=5, participants={"deadline": "learned"}))
    for _ in range(3):
        for task in bench.tasks(TaskKind.TRAIN):
            bench.update(task, filled(1.0))
        bench.close()
        bench.report_all()
    assert bench.round()["deadline_at"] - bench.round()["opened_at"] == SHORTEST_SECONDS
    bench.update(bench.tasks(TaskKind.TRAIN)[0], filled(1.0))
    clock.now += 60.0
    tick(bench.services)
    assert bench.round()["state"] == "training"


def test_judging_has_a_learned_deadline_of_its_own(bench: Bench, clock: Clock) -> None:
    bench.begin(study_of(rounds=5, participants={"deadline": "learned"}))
    for _ in range(3):
        for task in bench.tasks(TaskKind.TRAIN):
            bench.update(task, filled(1.0))
        bench.close()
        clock.now += 8.0
        bench.report_all()
    for task in bench.tasks(TaskKind.TRAIN):
        bench.update(task, filled(1.0))
    bench.close()
    assert bench.round()["state"] == "evaluating"
    assert bench.round()["deadline_at"] - clock.now == 12.0
