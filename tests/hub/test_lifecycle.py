"""The rules of a study's life, without a database."""

import pytest

from hub.errors import StateError
from hub.studies.lifecycle import (
    Answer,
    StudyEvent,
    is_open,
    next_participant_state,
    next_study_state,
    outcome_of,
)
from protocol.study import StudySpec, parse_study
from tests.hub.conftest import specification

APPROVED, EVALUATES = Answer("approved", 40), Answer("approved", 0)
INVITED, REFUSED, WITHDRAWN = Answer("invited", 0), Answer("refused", 0), Answer("withdrawn", 0)


def test_a_study_runs_once_and_ends_once() -> None:
    assert next_study_state("proposed", StudyEvent.START) == "running"
    assert next_study_state("running", StudyEvent.COMPLETE) == "completed"
    for ended in ("completed", "failed", "stopped"):
        assert not is_open(ended)
        for event in StudyEvent:
            with pytest.raises(StateError, match=ended):
                next_study_state(ended, event)


def test_a_proposed_study_cannot_be_completed() -> None:
    with pytest.raises(StateError):
        next_study_state("proposed", StudyEvent.COMPLETE)


def test_a_site_may_change_its_mind_until_it_has_withdrawn() -> None:
    assert next_participant_state("refused", "approved") == "approved"
    assert next_participant_state("approved", "withdrawn") == "withdrawn"
    for decision in ("approved", "refused"):
        with pytest.raises(StateError):
            next_participant_state("withdrawn", decision)


@pytest.mark.parametrize(
    ("answers", "event", "asked_event"),
    [
        ([INVITED, INVITED, INVITED], None, None),
        ([APPROVED, INVITED, INVITED], None, None),
        ([APPROVED, APPROVED, INVITED], None, StudyEvent.START),
        ([APPROVED, APPROVED, APPROVED], StudyEvent.START, StudyEvent.START),
        ([APPROVED, APPROVED, REFUSED], StudyEvent.START, StudyEvent.START),
        ([APPROVED, EVALUATES, WITHDRAWN], StudyEvent.START, StudyEvent.START),
        ([APPROVED, REFUSED, INVITED], None, None),
        ([REFUSED, REFUSED, INVITED], StudyEvent.FAIL, StudyEvent.FAIL),
        ([APPROVED, REFUSED, REFUSED], StudyEvent.FAIL, StudyEvent.FAIL),
        ([EVALUATES, EVALUATES, REFUSED], StudyEvent.FAIL, StudyEvent.FAIL),
    ],
    ids=lambda value: ",".join(answer.state for answer in value) if isinstance(value, list) else str(value),
)
def test_when_a_study_that_needs_two_sites_starts(
    spec: StudySpec, answers: list[Answer], event: StudyEvent | None, asked_event: StudyEvent | None
) -> None:
    assert outcome_of(spec, answers).event == event
    assert outcome_of(spec, answers, asked_to_start=True).event == asked_event


def test_a_study_does_not_start_when_its_delta_is_too_large_for_the_patients_who_came() -> None:
    spec = parse_study(
        specification(
            privacy={"epsilon": 8, "delta": 1e-4}, participants={"minimum_sites": 1, "training_patients": 300}
        )
    )
    assert outcome_of(spec, [Answer("approved", 300)]).event == StudyEvent.START
    outcome = outcome_of(spec, [Answer("approved", 3000)])
    assert outcome.event == StudyEvent.FAIL
    assert "privacy.delta" in outcome.reason
