"""The states of rounds and of tasks: two tables of (state, event) -> state. Pure.

A round 0 makes version 0 (`initialising`); every later round trains and aggregates. Then the version is judged, where
that is due. A task is what one site is asked in a round. What is not in a table is not legal, and nothing else
in the hub writes a state.

    >>> next_round_state(RoundState.TRAINING, RoundEvent.QUORUM_REACHED).value
    'aggregating'
"""

from enum import StrEnum

from hub.errors import StateError


class RoundState(StrEnum):
    """Where a round is."""

    INITIALISING = "initialising"
    TRAINING = "training"
    OPENING = "opening"
    AGGREGATING = "aggregating"
    EVALUATING = "evaluating"
    COMPLETE = "complete"
    FAILED = "failed"


class RoundEvent(StrEnum):
    """What moves a round."""

    NO_SITE_LEFT = "no-site-left"
    QUORUM_REACHED = "quorum-reached"
    QUORUM_LOST = "quorum-lost"
    SURVIVORS_FIXED = "survivors-fixed"
    SUM_OPENED = "sum-opened"
    OPENING_FAILED = "opening-failed"
    VERSION_COMMITTED = "version-committed"
    VERSION_COMMITTED_UNJUDGED = "version-committed-unjudged"
    CLOSE_FAILED = "close-failed"
    JUDGED = "judged"
    ABANDONED = "abandoned"


class TaskState(StrEnum):
    """Where a task is."""

    OPEN = "open"
    DELIVERED = "delivered"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    CANCELLED = "cancelled"


class TaskEvent(StrEnum):
    """What moves a task."""

    FETCHED = "fetched"
    ANSWERED = "answered"
    REFUSED = "refused"
    CANCELLED = "cancelled"


_R, _E = RoundState, RoundEvent
ROUND_TABLE: dict[tuple[RoundState, RoundEvent], RoundState] = {
    (_R.INITIALISING, _E.VERSION_COMMITTED): _R.EVALUATING,
    (_R.INITIALISING, _E.VERSION_COMMITTED_UNJUDGED): _R.COMPLETE,
    (_R.INITIALISING, _E.NO_SITE_LEFT): _R.FAILED,
    (_R.INITIALISING, _E.ABANDONED): _R.FAILED,
    (_R.TRAINING, _E.QUORUM_REACHED): _R.AGGREGATING,
    (_R.TRAINING, _E.QUORUM_LOST): _R.FAILED,
    (_R.TRAINING, _E.ABANDONED): _R.FAILED,
    # Where the hub cannot read the updates, the sites open their sum (`opening.py`).
    (_R.TRAINING, _E.SURVIVORS_FIXED): _R.OPENING,
    (_R.OPENING, _E.SUM_OPENED): _R.AGGREGATING,
    (_R.OPENING, _E.OPENING_FAILED): _R.FAILED,
    (_R.OPENING, _E.ABANDONED): _R.FAILED,
    (_R.AGGREGATING, _E.VERSION_COMMITTED): _R.EVALUATING,
    (_R.AGGREGATING, _E.VERSION_COMMITTED_UNJUDGED): _R.COMPLETE,
    (_R.AGGREGATING, _E.CLOSE_FAILED): _R.FAILED,
    (_R.AGGREGATING, _E.ABANDONED): _R.FAILED,
    (_R.EVALUATING, _E.JUDGED): _R.COMPLETE,
    # The version of a round that is being judged exists already: ending the study early does not undo it.
    (_R.EVALUATING, _E.ABANDONED): _R.COMPLETE,
}

_T, _F = TaskState, TaskEvent
TASK_TABLE: dict[tuple[TaskState, TaskEvent], TaskState] = {
    (_T.OPEN, _F.FETCHED): _T.DELIVERED,
    (_T.OPEN, _F.ANSWERED): _T.ACCEPTED,
    (_T.OPEN, _F.REFUSED): _T.REFUSED,
    (_T.OPEN, _F.CANCELLED): _T.CANCELLED,
    (_T.DELIVERED, _F.FETCHED): _T.DELIVERED,
    (_T.DELIVERED, _F.ANSWERED): _T.ACCEPTED,
    (_T.DELIVERED, _F.REFUSED): _T.REFUSED,
    (_T.DELIVERED, _F.CANCELLED): _T.CANCELLED,
}

OPEN_ROUND_STATES = frozenset({_R.INITIALISING, _R.TRAINING, _R.OPENING, _R.AGGREGATING, _R.EVALUATING})
WAITING_TASK_STATES = frozenset({_T.OPEN, _T.DELIVERED})


def next_round_state(state: str, event: RoundEvent) -> RoundState:
    """Return where the event leads.

    Raises: StateError if the event is not legal in this state.
    """
    try:
        return ROUND_TABLE[RoundState(state), event]
    except KeyError as error:
        raise StateError(f"A round that is {state} knows no event {event.value}.") from error


def next_task_state(state: str, event: TaskEvent) -> TaskState:
    """Return where the event leads.

    Raises: StateError if the event is not legal in this state.
    """
    try:
        return TASK_TABLE[TaskState(state), event]
    except KeyError as error:
        raise StateError(f"A task that is {state} knows no event {event.value}.") from error


def is_waiting(state: str) -> bool:
    """Tell whether a task's answer is still awaited."""
    return TaskState(state) in WAITING_TASK_STATES
