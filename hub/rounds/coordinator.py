"""The coordinator of rounds: load, apply the rule, save, audit: one transaction.

Every function works in the caller's transaction; `advance` is called after each answer and by the clock
(`deadlines.py`), looks at the study's open rounds and moves each as far as the rules allow. What follows a round is in
`course.py`; the close itself, which reads and writes large files, is in `committing.py`.
"""

from collections.abc import Callable, Sequence

from hub.rounds import masked_judging
from hub.rounds.asking import Turn, ask, cancel_waiting
from hub.rounds.closing import Verdict, initialising_verdict, judging_verdict, standing_of
from hub.rounds.course import close_all, complete_judging, fail_round, judge_or_go_on
from hub.rounds.moving import add_round, move_round
from hub.rounds.opening_methods import opening_of
from hub.rounds.participants import initialisers
from hub.rounds.training_rounds import ask_ready_sites
from hub.rounds.transitions import (
    OPEN_ROUND_STATES,
    WAITING_TASK_STATES,
    RoundEvent,
    RoundState,
    TaskState,
)
from hub.rounds.version_zero import register_given_version_zero, register_version_zero
from hub.rounds.waiting_updates import (
    is_buffered,
    no_longer_waited_for,
    take_updates,
    updates_for,
    verdict_on_training,
)
from hub.rounds.worker_orders import order_work
from hub.services import Services
from hub.storage import round_stores, stores
from hub.storage.database import Session
from hub.storage.tables import RoundRow, StudyRow, TaskRow
from hub.studies.lifecycle import StudyState
from hub.studies.specification import stored_study
from protocol.messages import TaskKind
from protocol.study import StudySpec

_KIND_ASKED = {
    RoundState.INITIALISING: TaskKind.INITIALISE,
    RoundState.TRAINING: TaskKind.TRAIN,
    RoundState.OPENING: TaskKind.TRAIN,
    RoundState.EVALUATING: TaskKind.EVALUATE,
}
WENT_ON = "The round closed with the others' updates, and the next ones do not wait for this one."
_OPEN = sorted(state.value for state in OPEN_ROUND_STATES)


def open_study(session: Session, services: Services, study: StudyRow, spec: StudySpec) -> None:
    """Open round 0 of a study that starts: ask one site to build version 0, or take the weights that it names."""
    turn = Turn(session, services, study, spec)
    row = add_round(turn, 0, RoundState.INITIALISING)
    if spec.start.weights is not None:
        judge_or_go_on(turn, row, register_given_version_zero(turn, spec.start.weights))
        return
    _ask_next_initialiser(turn, row, asked=())


def advance(session: Session, services: Services, study_digest: str) -> bool:
    """Move a study's open rounds as far as the rules allow; tell whether anything moved."""
    study = stores.study(session, study_digest)
    turn = Turn(session, services, study, stored_study(study.specification))
    session.flush()
    moved = False
    for row in round_stores.open_rounds(session, study_digest, _OPEN):
        if study.state == StudyState.RUNNING and row.state in OPEN_ROUND_STATES:  # an earlier step may have ended both
            moved = _advance_round(turn, row) or moved
    return moved


def verdict_of(turn: Turn, row: RoundRow) -> Verdict:
    """Say what the rules want done with a round now; WAIT for one that is aggregating or closed."""
    state = RoundState(row.state)
    if state not in _KIND_ASKED:
        return Verdict.WAIT
    method = opening_of(turn.spec)
    if method is not None and state in (RoundState.TRAINING, RoundState.OPENING):
        return method.verdict(turn, row, _standings(turn, row))
    if state is RoundState.TRAINING:
        return verdict_on_training(turn, row)
    # Counted by the database: this is asked after each of a round's answers, and there may be a thousand.
    states = round_stores.count_task_states(turn.session, row.study, row.number, _KIND_ASKED[state].value)
    standing = standing_of(states, overdue=turn.now >= row.deadline_at)
    if state is RoundState.EVALUATING:
        masked = masked_judging.judged_under_masks(turn, row)
        return (
            judging_verdict(standing)
            if masked is None
            else masked_judging.verdict(turn, row, masked, _standings(turn, row))
        )
    return initialising_verdict(standing, len(_initialisers_left(turn, _tasks(turn, row))))


def withdraw_site(session: Session, services: Services, study: StudyRow, site: str) -> None:
    """Cancel a site's open tasks after it withdrew its approval, and move the round if that settles it."""
    turn = Turn(session, services, study, stored_study(study.specification))
    waiting = round_stores.tasks_of_site(session, site, [state.value for state in WAITING_TASK_STATES])
    cancel_waiting(turn, [task for task in waiting if task.study == study.digest], "approval-withdrawn")
    advance(session, services, study.digest)


def close_open_rounds(session: Session, services: Services, study: StudyRow, reason: str) -> None:
    """Cancel all that is open in a study that ends early."""
    close_all(Turn(session, services, study, stored_study(study.specification)), reason)


def _advance_round(turn: Turn, row: RoundRow) -> bool:
    asked = _ask_if_buffer_has_room(turn, row)
    verdict = verdict_of(turn, row)
    if verdict is Verdict.WAIT:
        return asked
    _STEPS[RoundState(row.state)](turn, row, verdict)
    turn.session.flush()
    return True


def _ask_if_buffer_has_room(turn: Turn, row: RoundRow) -> bool:
    if row.state != RoundState.TRAINING or not is_buffered(turn.spec):
        return False
    is_full = len(updates_for(turn, row)) >= (turn.spec.pace.buffer or 1)
    return not is_full and ask_ready_sites(turn, row)


def _step_initialising(turn: Turn, row: RoundRow, verdict: Verdict) -> None:
    tasks = _tasks(turn, row)
    if verdict is Verdict.CLOSE:
        judge_or_go_on(turn, row, register_version_zero(turn))
    elif verdict is Verdict.ASK_NEXT:
        cancel_waiting(turn, tasks, "No answer before the deadline; another site is asked.")
        row.deadline_at = turn.now + turn.spec.participants.deadline_seconds
        _ask_next_initialiser(turn, row, tasks)
    else:
        fail_round(turn, row, RoundEvent.NO_SITE_LEFT, "No site built version 0.")


def _step_training(turn: Turn, row: RoundRow, verdict: Verdict) -> None:
    tasks, method = _tasks(turn, row), opening_of(turn.spec)
    accepted = sum(task.state == TaskState.ACCEPTED for task in tasks)
    if verdict is Verdict.FAIL:
        reason = f"{accepted} of {len(tasks)} asked sites sent an update that could be used: below the quorum."
        fail_round(turn, row, RoundEvent.QUORUM_LOST, method.why(turn, row) if method else reason)
        return
    if method is not None and not method.step(turn, row, tasks):
        return
    cancel_waiting(turn, no_longer_waited_for(turn, row), WENT_ON)
    take_updates(turn, row)
    if method is not None:
        move_round(turn, row, RoundEvent.SURVIVORS_FIXED)
        method.begin(turn, row)
        return
    move_round(turn, row, RoundEvent.QUORUM_REACHED)
    order_work(turn.session, row.study, row.number)


def _step_opening(turn: Turn, row: RoundRow, verdict: Verdict) -> None:
    method = opening_of(turn.spec)
    if method is None or verdict is Verdict.FAIL:
        fail_round(turn, row, RoundEvent.OPENING_FAILED, method.why(turn, row) if method else "")
    elif method.step(turn, row, _tasks(turn, row)):
        move_round(turn, row, RoundEvent.SUM_OPENED)
        order_work(turn.session, row.study, row.number)


def _step_evaluating(turn: Turn, row: RoundRow, verdict: Verdict) -> None:
    masked = masked_judging.judged_under_masks(turn, row)
    if masked is None:
        complete_judging(turn, row)
    elif verdict is Verdict.FAIL:
        complete_judging(turn, row, masked_judging.why(turn, masked))
    elif masked_judging.step(turn, masked, _tasks(turn, row)):
        order_work(turn.session, row.study, row.number)


_STEPS: dict[RoundState, Callable[[Turn, RoundRow, Verdict], None]] = {
    RoundState.INITIALISING: _step_initialising,
    RoundState.TRAINING: _step_training,
    RoundState.OPENING: _step_opening,
    RoundState.EVALUATING: _step_evaluating,
}


def _ask_next_initialiser(turn: Turn, row: RoundRow, asked: Sequence[TaskRow]) -> None:
    ask(turn, _initialisers_left(turn, asked)[:1], row.number, TaskKind.INITIALISE, None)


def _initialisers_left(turn: Turn, asked: Sequence[TaskRow]) -> list[str]:
    known = {task.site for task in asked}
    return [p.site for p in initialisers(turn.participants(), turn.now) if p.site not in known]


def _standings(turn: Turn, row: RoundRow) -> Sequence[round_stores.TaskStanding]:
    kind = _KIND_ASKED[RoundState(row.state)]
    return round_stores.standings_of_round(turn.session, row.study, row.number, kind.value)


def _tasks(turn: Turn, row: RoundRow) -> Sequence[TaskRow]:
    kind = _KIND_ASKED.get(RoundState(row.state))
    if kind is None:
        return ()
    return round_stores.tasks_of_round(turn.session, row.study, row.number, kind.value)
