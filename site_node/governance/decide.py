"""May this task be done? Task, study, approval, ledger and history in; accept, refuse or wait out. Pure.

The order of the rules is the order of what a reader should be told first. The agent is told the verdict and never why
a number was what it was.
"""

from dataclasses import dataclass
from typing import Literal

from protocol.messages import Reason, RoundTask, TaskKind
from protocol.study import StudySpec
from site_node.governance.approval import Standing
from site_node.governance.policy import Objection, maximum_evaluations
from site_node.governance.records import StudyState

Word = Literal["accept", "refuse", "wait"]


@dataclass(frozen=True)
class Verdict:
    """What is told to the agent, and to the hub if it is a refusal."""

    word: Word
    reason: Reason | None = None


@dataclass(frozen=True)
class StudyStanding:
    """What the gate knows about a task's study when it decides."""

    study: StudySpec
    state: StudyState
    standing: Standing
    objection: Objection | None
    noise_multiplier: float | None
    charged: bool
    training_patients: int
    held_out_patients: int


@dataclass(frozen=True)
class History:
    """What was given before: the digest accepted for this (study, round, kind), and how many tasks of this kind.

    `base_digest` is of the weights that the task's base version is known by here.
    """

    accepted_digest: str | None
    tasks_given: int
    base_digest: str | None = None


ACCEPT = Verdict("accept")
WAIT = Verdict("wait")


def decide(task: RoundTask, task_digest: str, site: str, known: StudyStanding | None, history: History) -> Verdict:
    """Return the verdict on a task.

    Guarantee: at most one digest is ever accepted for a (study, round, kind), never more tasks than were charged, and
        one set of weights for each version number, of which 0 is this site's own build.
    """
    if task.site != site:
        return Verdict("refuse", Reason.BAD_TASK)
    if known is None:
        return Verdict("refuse", Reason.UNKNOWN_STUDY)
    if known.state in ("counting", "awaiting"):
        return WAIT
    reason = _approval(known) or _terms(task, known) or _lineage(task, history) or _bounds(task, known, history)
    if reason is None and history.accepted_digest not in (None, task_digest):
        reason = Reason.ROUND_ALREADY_ANSWERED
    return ACCEPT if reason is None else Verdict("refuse", reason)


def _approval(known: StudyStanding) -> Reason | None:
    by_standing = {
        "withdrawn": Reason.APPROVAL_WITHDRAWN,
        "expired": Reason.APPROVAL_EXPIRED,
        "refused": Reason.NOT_APPROVED,
        "undecided": Reason.NOT_APPROVED,
    }
    if known.standing != "approved":
        return by_standing[known.standing]
    if known.state != "approved":
        return Reason.APPROVAL_WITHDRAWN if known.state == "withdrawn" else Reason.NOT_APPROVED
    if known.objection is not None:
        return known.objection.reason
    return None if known.charged else Reason.BUDGET_SPENT


def _terms(task: RoundTask, known: StudyStanding) -> Reason | None:
    is_first = task.kind is TaskKind.INITIALISE
    if is_first != (task.base is None) or (is_first and task.round != 0):
        return Reason.BAD_TASK
    if task.kind is TaskKind.TRAIN and task.noise_multiplier != known.noise_multiplier:
        return Reason.BAD_TASK
    if task.kind is TaskKind.TRAIN and known.training_patients == 0:
        return Reason.TOO_FEW_PATIENTS
    if task.kind is TaskKind.EVALUATE and known.held_out_patients == 0:
        return Reason.NO_HELD_OUT_PATIENTS
    return None


def _lineage(task: RoundTask, history: History) -> Reason | None:
    """Check that a task stands on the version before it, and on the weights that this version is known by."""
    if task.base is None:
        return None
    number = task.round - 1 if task.kind is TaskKind.TRAIN else task.round
    if task.base.number != number or history.base_digest not in (None, task.base.weights_digest):
        return Reason.BAD_TASK
    return None


def _bounds(task: RoundTask, known: StudyStanding, history: History) -> Reason | None:
    most = {
        TaskKind.INITIALISE: 1,
        TaskKind.TRAIN: known.study.maximum_training_tasks,
        TaskKind.EVALUATE: maximum_evaluations(known.study),
    }[task.kind]
    given_before = history.tasks_given - (history.accepted_digest is not None)
    if task.sequence > most or given_before >= most or task.round > known.study.maximum_training_tasks:
        return Reason.TOO_MANY_TASKS
    return None
