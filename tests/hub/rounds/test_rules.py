"""The pure rules of rounds: tables, closing, participants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import StateError
from hub.rounds.closing import (
    Standing,
    Verdict,
    initialising_verdict,
    judging_verdict,
    needed_updates,
    standing_of,
    training_verdict,
)
from hub.rounds.participants import Participant, initialisers, judges, trainers, weight_of
from hub.rounds.transitions import (
    OPEN_ROUND_STATES,
    ROUND_TABLE,
    TASK_TABLE,
    WAITING_TASK_STATES,
    RoundEvent,
    RoundState,
    TaskEvent,
    TaskState,
    next_round_state,
    next_task_state,
)


def test_every_open_round_can_be_abandoned_and_no_closed_one_moves() -> None:
    for state in RoundState:
        events = {event for (origin, event) in ROUND_TABLE if origin is state}
        assert (RoundEvent.ABANDONED in events) == (state in OPEN_ROUND_STATES)
        assert bool(events) == (state in OPEN_ROUND_STATES)


def test_an_answer_is_final() -> None:
    assert {origin for origin, _ in TASK_TABLE} == WAITING_TASK_STATES
    with pytest.raises(StateError):
        next_task_state(TaskState.ACCEPTED, TaskEvent.REFUSED)
    with pytest.raises(StateError):
        next_round_state("complete", RoundEvent.QUORUM_REACHED)


@pytest.mark.parametrize(
    ("asked", "quorum", "needed"),
    [(3, 0.5, 2), (4, 0.5, 2), (3, 1.0, 3), (100, 0.07, 7), (1, 0.01, 1), (10, 0.75, 8), (30, 0.1, 3)],
)
def test_the_quorum_is_rounded_up_but_not_by_binary_fractions(asked: int, quorum: float, needed: int) -> None:
    assert needed_updates(asked, quorum) == needed


@pytest.mark.parametrize(
    ("accepted", "waiting", "overdue", "verdict"),
    [
        (3, 0, False, Verdict.CLOSE),
        (2, 1, False, Verdict.WAIT),
        (2, 1, True, Verdict.CLOSE),
        (1, 2, True, Verdict.WAIT),
        (2, 0, False, Verdict.CLOSE),
        (1, 0, False, Verdict.FAIL),
        (1, 0, True, Verdict.FAIL),
        (0, 3, True, Verdict.WAIT),
    ],
)
def test_training_of_three_sites_with_a_quorum_of_half(
    accepted: int, waiting: int, overdue: bool, verdict: Verdict
) -> None:
    assert training_verdict(Standing(3, accepted, waiting, overdue), 0.5) is verdict


def test_a_round_waits_for_as_many_updates_as_can_be_joined() -> None:
    overdue = Standing(asked=4, accepted=2, waiting=1, overdue=True)
    assert training_verdict(overdue, 0.5) is Verdict.CLOSE
    assert training_verdict(overdue, 0.5, least=3) is Verdict.WAIT
    assert training_verdict(Standing(4, 2, 0, overdue=True), 0.5, least=3) is Verdict.FAIL


@given(
    states=st.lists(st.sampled_from(list(TaskState)), min_size=1, max_size=20),
    quorum=st.floats(0.01, 1.0),
    overdue=st.booleans(),
)
def test_a_round_closes_only_at_its_quorum_and_fails_only_when_all_have_answered(
    states: list[TaskState], quorum: float, overdue: bool
) -> None:
    standing = standing_of(states, overdue=overdue)
    verdict = training_verdict(standing, quorum)
    if verdict is Verdict.CLOSE:
        assert standing.accepted >= quorum * standing.asked - 1e-6
    if verdict is Verdict.FAIL:
        assert standing.waiting == 0
    if standing.waiting == 0:
        assert verdict is not Verdict.WAIT


def test_judging_ends_with_the_last_report_or_at_the_deadline() -> None:
    assert judging_verdict(Standing(3, 2, 1, overdue=False)) is Verdict.WAIT
    assert judging_verdict(Standing(3, 0, 3, overdue=True)) is Verdict.CLOSE
    assert judging_verdict(Standing(3, 1, 0, overdue=False)) is Verdict.CLOSE


@pytest.mark.parametrize(
    ("standing", "left", "verdict"),
    [
        (Standing(1, 1, 0, False), 2, Verdict.CLOSE),
        (Standing(1, 0, 1, False), 2, Verdict.WAIT),
        (Standing(1, 0, 1, True), 2, Verdict.ASK_NEXT),
        (Standing(3, 0, 1, True), 0, Verdict.WAIT),
        (Standing(1, 0, 0, False), 2, Verdict.ASK_NEXT),
        (Standing(3, 0, 0, False), 0, Verdict.FAIL),
    ],
)
def test_version_zero_is_asked_of_one_site_after_another(standing: Standing, left: int, verdict: Verdict) -> None:
    assert initialising_verdict(standing, left) is verdict


def test_who_is_asked() -> None:
    participants = [
        Participant("dora", "approved", 0, evaluates=True),
        Participant("clara", "withdrawn", 50, evaluates=True),
        Participant("bela", "approved", 20, evaluates=False, expires_at=100.0),
        Participant("anna", "approved", 10, evaluates=True),
    ]
    assert [p.site for p in trainers(participants, 99.0)] == ["anna", "bela"]
    assert [p.site for p in trainers(participants, 100.0)] == ["anna"]
    assert [p.site for p in judges(participants, 0.0)] == ["anna", "dora"]
    assert [p.site for p in initialisers(participants, 0.0)] == ["anna", "bela", "dora"]


def test_weights_are_the_public_figures_or_all_one() -> None:
    assert weight_of(167, "patients") == 167.0
    assert weight_of(167, "equal") == 1.0
