"""Updates that wait for a close: which a round takes, how stale each is, and whose answers are still waited for.

    synchronous, late: refuse   a round takes its own updates; at its close the other answers are no longer waited for
    synchronous, late: fold     a round also takes what came late for the round before it, whose sites it did not ask
    buffered                    a round takes whatever waits; answers are waited for until they would be too stale

An update is taken at most once: the round that takes it is written on its row in the transaction that closes training,
so that the close, however often it is repeated, counts the same updates.
"""

from collections.abc import Sequence

from hub.rounds.asking import Turn
from hub.rounds.closing import Standing, Verdict, buffered_verdict, standing_of, training_verdict
from hub.rounds.terms import stored_task
from hub.rounds.transitions import WAITING_TASK_STATES, TaskState, is_waiting
from hub.storage import round_stores, stores
from hub.storage.tables import RoundRow, TaskRow, UpdateRow
from protocol.messages import TaskKind
from protocol.strategy_rules import joining_needs
from protocol.study import StudySpec


def is_buffered(study: StudySpec) -> bool:
    """Tell whether versions are made of whatever has come."""
    return study.pace.mode == "buffered"


def weight_of_age(staleness: int, exponent: float) -> float:
    """Return (1 + staleness)^-exponent, which an update is multiplied by; 1 for a fresh one.

    Source: Xie et al. 2019, arXiv:1903.03934 (polynomial); Nguyen et al. 2022, arXiv:2106.06639 (exponent 0.5).
    """
    return float((1 + staleness) ** -exponent)


def training_now(turn: Turn) -> Sequence[TaskRow]:
    """Return the study's training tasks, of any round, that are still waited for."""
    states = [state.value for state in WAITING_TASK_STATES]
    return round_stores.tasks_in(turn.session, turn.study.digest, states, TaskKind.TRAIN.value)


def verdict_on_training(turn: Turn, row: RoundRow) -> Verdict:
    """Say what is to be done with a round that trains in clear."""
    overdue, terms = turn.now >= row.deadline_at, turn.spec.participants
    if not is_buffered(turn.spec):
        states = round_stores.count_task_states(turn.session, row.study, row.number, TaskKind.TRAIN.value)
        if terms.late == "fold":
            states.update(task.state for task in _carried(turn, row))
        return training_verdict(standing_of(states, overdue=overdue), terms.quorum, joining_needs(turn.spec))
    waiting, here = training_now(turn), updates_for(turn, row)
    tasks = round_stores.tasks_of_round(turn.session, row.study, row.number, TaskKind.TRAIN.value)
    sites = {task.site for task in (*tasks, *waiting)} | {update.site for update in here}
    standing = Standing(asked=len(sites), accepted=len(here), waiting=len(waiting), overdue=overdue)
    return buffered_verdict(standing, turn.spec.pace.buffer or 1, terms.quorum)


def updates_for(turn: Turn, row: RoundRow) -> list[UpdateRow]:
    """Return the accepted updates that a round would take if it closed now."""
    waiting = round_stores.updates_waiting(turn.session, turn.study.digest)
    if is_buffered(turn.spec):
        return list(waiting)
    oldest = row.number - (turn.spec.participants.late == "fold")
    return [update for update in waiting if oldest <= update.round <= row.number]


def take_updates(turn: Turn, row: RoundRow) -> None:
    """Write on each update that the round takes that it does, and how stale it is."""
    made, taken = stores.version_numbers(turn.session, turn.study.digest), updates_for(turn, row)
    tasks = round_stores.tasks_by_id(turn.session, [update.task_id for update in taken])
    for update in taken:
        update.taken_in, update.staleness = row.number, _staleness(tasks.get(update.task_id), made)


def no_longer_waited_for(turn: Turn, row: RoundRow) -> list[TaskRow]:
    """Return the training tasks whose answers will not be taken any more, once the round closes."""
    waiting, made = training_now(turn), stores.version_numbers(turn.session, turn.study.digest)
    is_last = len([number for number in made if number > 0]) + 1 >= turn.spec.rounds
    if is_buffered(turn.spec) and not is_last:
        return [task for task in waiting if _staleness(task, made) + 1 > turn.spec.pace.maximum_staleness]
    if turn.spec.participants.late == "fold" and not is_last:
        return [task for task in waiting if task.round < row.number]
    return list(waiting)


def _carried(turn: Turn, row: RoundRow) -> list[TaskRow]:
    """Return the round before's tasks that this round still waits for, or whose late updates it will take."""
    taken = {update.task_id for update in updates_for(turn, row)}
    before = round_stores.tasks_of_round(turn.session, row.study, row.number - 1, TaskKind.TRAIN.value)
    return [t for t in before if is_waiting(t.state) or (t.state == TaskState.ACCEPTED and t.task_id in taken)]


def _staleness(task: TaskRow | None, versions: Sequence[int]) -> int:
    base = stored_task(task.document).base if task is not None else None
    return 0 if base is None else sum(number > base.number for number in versions)
