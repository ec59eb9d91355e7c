"""The life of a study and of a site's part in it, as tables. Pure.

| study     | start   | complete  | fail   | stop    |
|-----------|---------|-----------|--------|---------|
| proposed  | running |           | failed | stopped |
| running   |         | completed | failed | stopped |

| participant | approved | refused | withdrawn |
|-------------|----------|---------|-----------|
| invited     | approved | refused | refused   |
| refused     | approved | refused |           |
| approved    | approved |         | withdrawn |
| withdrawn   |          |         | withdrawn |

A study starts by itself when every invited site has answered and enough approved; it fails as soon as it cannot
get enough. A site that was slow may still join a running study.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from hub.errors import StateError
from protocol.study import StudySpec
from protocol.study_rules import delta_problem


class StudyState(StrEnum):
    """States of a study."""

    PROPOSED = "proposed"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


class StudyEvent(StrEnum):
    """What may happen to a study."""

    START = "start"
    COMPLETE = "complete"
    FAIL = "fail"
    STOP = "stop"


STUDY_TABLE: dict[tuple[StudyState, StudyEvent], StudyState] = {
    (StudyState.PROPOSED, StudyEvent.START): StudyState.RUNNING,
    (StudyState.PROPOSED, StudyEvent.FAIL): StudyState.FAILED,
    (StudyState.PROPOSED, StudyEvent.STOP): StudyState.STOPPED,
    (StudyState.RUNNING, StudyEvent.COMPLETE): StudyState.COMPLETED,
    (StudyState.RUNNING, StudyEvent.FAIL): StudyState.FAILED,
    (StudyState.RUNNING, StudyEvent.STOP): StudyState.STOPPED,
}

PARTICIPANT_TABLE: dict[tuple[str, str], str] = {
    ("invited", "approved"): "approved",
    ("invited", "refused"): "refused",
    ("invited", "withdrawn"): "refused",
    ("refused", "approved"): "approved",
    ("refused", "refused"): "refused",
    ("approved", "approved"): "approved",
    ("approved", "withdrawn"): "withdrawn",
    ("withdrawn", "withdrawn"): "withdrawn",
}


@dataclass(frozen=True)
class Answer:
    """The state and public figure of a participant, or of several in one state: the sum of their figures."""

    state: str
    training_patients: int
    sites: int = 1


@dataclass(frozen=True)
class Outcome:
    """What the answers mean for a proposed study: an event, or None to wait; `reason` says why it cannot start yet."""

    event: StudyEvent | None
    reason: str = ""


def is_open(state: str) -> bool:
    """Tell whether a study has not ended."""
    return state in (StudyState.PROPOSED, StudyState.RUNNING)


def next_study_state(state: str, event: StudyEvent) -> StudyState:
    """Return the state after an event.

    Raises: StateError if the event is not legal in this state.
    """
    try:
        return STUDY_TABLE[StudyState(state), event]
    except KeyError:
        raise StateError(f"The study is {state}; '{event}' is not possible.", "Look at its state first.") from None


def next_participant_state(state: str, decision: str) -> str:
    """Return a participant's state after a site's decision.

    Raises: StateError if the decision is not legal in this state.
    """
    try:
        return PARTICIPANT_TABLE[state, decision]
    except KeyError:
        raise StateError(
            f"The site's part in the study is {state}; it cannot become {decision}.", "Propose a new study."
        ) from None


def outcome_of(study: StudySpec, answers: Sequence[Answer], *, asked_to_start: bool = False) -> Outcome:
    """Say whether a proposed study starts, fails or waits for more answers.

    With `asked_to_start` (a researcher's wish) it does not wait for sites that have not answered.
    """
    approved = sum(answer.sites for answer in answers if answer.state == "approved")
    waiting = sum(answer.sites for answer in answers if answer.state == "invited")
    minimum = study.participants.minimum_sites
    if approved + waiting < minimum:
        return Outcome(StudyEvent.FAIL, f"{approved} sites approved; the study needs {minimum}.")
    if approved < minimum or (waiting and not asked_to_start):
        return Outcome(None, f"{approved} of at least {minimum} sites have approved, {waiting} have not answered.")
    problem = _problem_of(study, sum(answer.training_patients for answer in answers if answer.state == "approved"))
    return Outcome(StudyEvent.FAIL, problem) if problem else Outcome(StudyEvent.START)


def _problem_of(study: StudySpec, training_patients: int) -> str | None:
    if training_patients == 0:
        return "No approving site has patients to train on."
    if study.privacy.epsilon is None:
        return None
    return delta_problem(study.privacy.delta, training_patients, study.privacy.allow_large_delta)
