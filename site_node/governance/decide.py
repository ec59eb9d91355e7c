"""May this task be done? Task, study, approval, ledger and history in; accept, refuse or wait out. Pure.

The order of the rules is the order of what a reader should be told first. The agent is told the verdict and never why
a number was what it was.
"""

from dataclasses import dataclass
from typing import Literal

from protocol.messages import Reason, RoundTask, TaskKind
from protocol.privacy_accounting import maximum_evaluations
from protocol.site_level import is_possible_norm
from protocol.study import StudySpec
from site_node.governance.approval import Standing
from site_node.governance.policy import Objection
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
    ledger_behind: bool = False


@dataclass(frozen=True)
class History:
    """What was given before: the digest accepted for this (study, round, kind), and how many tasks of this kind.

    `was_opened` says that this site helped to open an un-noised sum of this kind over the task's weights in another
    round. `base_digest` is of the weights that the task's base version is known by here; `newest_version` is the
    highest number of a version of the study that is known here.
    """

    accepted_digest: str | None
    tasks_given: int
    base_digest: str | None = None
    newest_version: int | None = None
    was_opened: bool = False


ACCEPT = Verdict("accept")
WAIT = Verdict("wait")


def decide(
    task: RoundTask, task_digest: str, site: str, known: StudyStanding | None, history: History, *, held: bool = False
) -> Verdict:
    """Return the verdict on a task. One that would be accepted waits while nothing may begin (`held`).

    Guarantee: at most one digest is ever accepted for a (study, round, kind), never more tasks than were charged, and
        one set of weights for each version number, of which 0 is this site's own build, and one opened sum of un-noised
        answers of a kind for each set of weights.
    """
    if task.site != site:
        return Verdict("refuse", Reason.BAD_TASK)
    if known is None:
        return Verdict("refuse", Reason.UNKNOWN_STUDY)
    if known.state in ("counting", "awaiting"):
        return WAIT
    reason = _approval(known) or _ledger(task, known) or _terms(task, known)
    was_accepted = history.accepted_digest == task_digest  # then it stood on what was the newest version
    reason = reason or _lineage(task, known.study.privacy.spare_tasks, history, was_accepted=was_accepted)
    reason = reason or _bounds(task, known, history)
    if reason is None and history.was_opened:
        reason = Reason.ROUND_ALREADY_ANSWERED
    if reason is None and history.accepted_digest not in (None, task_digest):
        reason = Reason.ROUND_ALREADY_ANSWERED
    if reason is not None:
        return Verdict("refuse", reason)
    return WAIT if held else ACCEPT


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


def _ledger(task: RoundTask, known: StudyStanding) -> Reason | None:
    """Check that the ledger is no old copy of itself, before anything is spent; un-noised evaluation spends nothing."""
    noised = task.kind is TaskKind.EVALUATE and known.study.evaluation.noise_epsilon is not None
    spends = task.kind is TaskKind.TRAIN or noised
    return Reason.LEDGER_BEHIND if spends and known.ledger_behind else None


def _terms(task: RoundTask, known: StudyStanding) -> Reason | None:
    if task.kind is TaskKind.DECRYPT:  # asked with the signed notices of what is to be decrypted, never like this
        return Reason.BAD_TASK
    is_first = task.kind is TaskKind.INITIALISE
    if is_first != (task.base is None) or (is_first and task.round != 0):
        return Reason.BAD_TASK
    if is_first and known.study.start.weights is not None:  # version 0 is what was approved; nobody builds it
        return Reason.BAD_TASK
    if task.kind is TaskKind.TRAIN and task.noise_multiplier != known.noise_multiplier:
        return Reason.BAD_TASK
    if task.kind is TaskKind.TRAIN and not is_possible_norm(known.study, task.round, task.update_norm):
        return Reason.BAD_TASK
    if task.kind is not TaskKind.TRAIN and task.update_norm is not None:
        return Reason.BAD_TASK
    if not _is_factor_possible(task, known.study) or not _is_control_possible(task, known.study):
        return Reason.BAD_TASK
    if task.kind is TaskKind.TRAIN and known.training_patients == 0:
        return Reason.TOO_FEW_PATIENTS
    if task.kind is TaskKind.EVALUATE and known.held_out_patients == 0:
        return Reason.NO_HELD_OUT_PATIENTS
    return None


def _is_factor_possible(task: RoundTask, study: StudySpec) -> bool:
    """Tell whether a task may name this factor of the learning rate, or none.

    No factor costs privacy: the rate multiplies what is noised already. One out of bounds would cost accuracy.
    """
    if task.kind is not TaskKind.TRAIN:
        return task.rate_factor is None
    return study.site_rates.admits(task.round, task.rate_factor)


def _is_control_possible(task: RoundTask, study: StudySpec) -> bool:
    """Tell whether a task may name this control variate, or none: it belongs to the base version and has its form.

    What is in it is the hub's to say, as what is in the version: with DP neither can undo the noise.
    """
    if task.control is None:
        return True
    if task.base is None or task.kind is not TaskKind.TRAIN or study.strategy.name != "scaffold":
        return False
    return task.control == task.base.model_copy(update={"weights_digest": task.control.weights_digest})


def _lineage(task: RoundTask, spare_tasks: int, history: History, *, was_accepted: bool) -> Reason | None:
    """Check that a task stands on the newest version, and on the weights that this version is known by.

    Between a round and its base lie only rounds that failed, of which a study has no more than its spare tasks. Where
    a study does not wait for a site (buffered rounds, late updates), newer versions may be known here by the time that
    an accepted task is done.
    """
    if task.base is None:
        return None
    if history.base_digest not in (None, task.base.weights_digest):
        return Reason.BAD_TASK
    if task.kind is not TaskKind.TRAIN:
        return None if task.base.number == task.round else Reason.BAD_TASK
    failed = task.round - 1 - task.base.number
    is_newest = was_accepted or history.newest_version is None or task.base.number >= history.newest_version
    return None if is_newest and 0 <= failed <= spare_tasks else Reason.BAD_TASK


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
