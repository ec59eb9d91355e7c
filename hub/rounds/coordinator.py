"""The coordinator of rounds: load, apply the rule, save, audit: one transaction.

Every function works in the caller's transaction; `advance` is called after each answer and by the clock
(`deadlines.py`), looks at the study's newest round and moves it as far as the rules allow. The close itself, which
reads and writes large files, is in `committing.py`.
"""

from collections.abc import Callable, Sequence

from hub.aggregation.strategy import ServerState
from hub.registry.lineage import read_lineage
from hub.rounds import masked_judging
from hub.rounds.asking import Turn, ask, cancel_waiting
from hub.rounds.closing import Verdict, initialising_verdict, judging_verdict, standing_of, training_verdict
from hub.rounds.judgements import judgements_of
from hub.rounds.masking import end_masks, open_masks
from hub.rounds.opening_methods import opening_of
from hub.rounds.participants import initialisers, judges, sites_problem, taking_part, trainers
from hub.rounds.scoring import best_version
from hub.rounds.transitions import (
    OPEN_ROUND_STATES,
    WAITING_TASK_STATES,
    RoundEvent,
    RoundState,
    TaskState,
    next_round_state,
)
from hub.rounds.version_zero import register_version_zero
from hub.services import Services, enqueue_after_commit
from hub.storage import round_stores, stores
from hub.storage.database import Session
from hub.storage.tables import RoundRow, StudyRow, TaskRow, VersionRow
from hub.studies.ending import end_study
from hub.studies.lifecycle import StudyEvent, StudyState
from hub.studies.specification import stored_study
from protocol.messages import ModelReference, TaskKind
from protocol.secure_aggregation.histograms import sums_histograms
from protocol.study import StudySpec

AGGREGATE = "aggregate"
_KIND_ASKED = {
    RoundState.INITIALISING: TaskKind.INITIALISE,
    RoundState.TRAINING: TaskKind.TRAIN,
    RoundState.OPENING: TaskKind.TRAIN,
    RoundState.EVALUATING: TaskKind.EVALUATE,
}


def open_study(session: Session, services: Services, study: StudyRow, spec: StudySpec) -> None:
    """Open round 0 of a study that starts: ask one site to build version 0."""
    turn = Turn(session, services, study, spec)
    row = _add_round(turn, 0, RoundState.INITIALISING)
    _ask_next_initialiser(turn, row, asked=())


def advance(session: Session, services: Services, study_digest: str) -> bool:
    """Move a study's newest round as far as the rules allow; tell whether anything moved."""
    study = stores.study(session, study_digest)
    row = round_stores.last_round(session, study_digest)
    if study.state != StudyState.RUNNING or row is None:
        return False
    turn = Turn(session, services, study, stored_study(study.specification))
    session.flush()
    verdict = verdict_of(turn, row)
    if verdict is Verdict.WAIT:
        return False
    _STEPS[RoundState(row.state)](turn, row, verdict)
    return True


def verdict_of(turn: Turn, row: RoundRow) -> Verdict:
    """Say what the rules want done with a round now; WAIT for one that is aggregating or closed."""
    state = RoundState(row.state)
    if state not in _KIND_ASKED:
        return Verdict.WAIT
    tasks, method = _tasks(turn, row), opening_of(turn.spec)
    if method is not None and state in (RoundState.TRAINING, RoundState.OPENING):
        return method.verdict(turn, row, tasks)
    standing = standing_of((task.state for task in tasks), overdue=turn.now >= row.deadline_at)
    if state is RoundState.TRAINING:
        return training_verdict(standing, turn.spec.participants.quorum)
    if state is RoundState.EVALUATING:
        masked = masked_judging.judged_under_masks(turn, row)
        return judging_verdict(standing) if masked is None else masked_judging.verdict(turn, row, masked, tasks)
    return initialising_verdict(standing, len(_initialisers_left(turn, tasks)))


def withdraw_site(session: Session, services: Services, study: StudyRow, site: str) -> None:
    """Cancel a site's open tasks after it withdrew its approval, and move the round if that settles it."""
    turn = Turn(session, services, study, stored_study(study.specification))
    waiting = round_stores.tasks_of_site(session, site, [state.value for state in WAITING_TASK_STATES])
    cancel_waiting(turn, [task for task in waiting if task.study == study.digest], "approval-withdrawn")
    advance(session, services, study.digest)


def close_open_rounds(session: Session, services: Services, study: StudyRow, reason: str) -> None:
    """Cancel all that is open in a study that ends early."""
    turn = Turn(session, services, study, stored_study(study.specification))
    cancel_waiting(turn, round_stores.tasks_of_study(session, study.digest), reason)
    for row in round_stores.rounds(session, study.digest):
        if row.state in OPEN_ROUND_STATES:
            _end_opening(turn, row)
            move_round(turn, row, RoundEvent.ABANDONED, reason)


def move_round(turn: Turn, row: RoundRow, event: RoundEvent, reason: str = "") -> None:
    """Apply an event to a round, and audit it.

    Raises: StateError if the event is not legal in the round's state.
    """
    state = next_round_state(row.state, event)
    row.state, row.reason, row.phase_at = state.value, reason, turn.now
    if state in OPEN_ROUND_STATES:
        row.deadline_at = turn.now + turn.spec.participants.deadline_seconds
    else:
        row.ended_at = turn.now
    details: dict[str, object] = {"study": row.study, "round": row.number, "event": event.value, "reason": reason}
    turn.audit("hub", f"round.{state.value}", f"{turn.study.name}.r{row.number}", details)


def fail_round(turn: Turn, row: RoundRow, event: RoundEvent, reason: str) -> None:
    """End a round without a version. With a spare task left the next round tries again; else the study has failed.

    The round that tries again has the next number: new keys, new noise, another task in every site's ledger.
    """
    cancel_waiting(turn, _tasks(turn, row), reason)
    _end_opening(turn, row)
    move_round(turn, row, event, reason)
    turn.session.flush()
    missing = turn.spec.rounds - _versions_made(turn)
    if row.number > 0 and row.number + missing <= turn.spec.maximum_training_tasks:
        _open_training(turn, row.number + 1)
        return
    end_study(turn.session, turn.services, turn.study, StudyEvent.FAIL, f"Round {row.number} failed. {reason}")


def judge_or_go_on(turn: Turn, row: RoundRow, version: VersionRow) -> None:
    """After a version's commit: ask for its evaluation if it is due, else complete the round."""
    turn.session.flush()
    made = _versions_made(turn)
    due = made % turn.spec.evaluation.every == 0 or made == turn.spec.rounds
    asked = judges(turn.participants(), turn.now) if due else []
    problem = masked_judging.judges_problem(turn.spec, len(asked)) if asked else None
    if not asked or problem is not None:
        move_round(turn, row, RoundEvent.VERSION_COMMITTED_UNJUDGED, problem or "")
        _go_on(turn, row.number)
        return
    move_round(turn, row, RoundEvent.VERSION_COMMITTED)
    reference = ModelReference(
        number=version.number,
        weights_digest=version.weights_digest,
        weights_bytes=version.weights_bytes,
        manifest_digest=version.manifest_digest,
    )
    for participant in asked:
        ask(turn, participant.site, row.number, TaskKind.EVALUATE, reference)
    if sums_histograms(turn.spec):
        open_masks(turn, row, "evaluate", [participant.site for participant in asked])


def complete_judging(turn: Turn, row: RoundRow, reason: str = "") -> None:
    """Close a round whose version was judged, or stays unjudged for a reason, and go on with the study."""
    cancel_waiting(turn, _tasks(turn, row), reason or "No report before the deadline.")
    end_masks(turn, row, "evaluate")
    move_round(turn, row, RoundEvent.JUDGED, reason)
    _go_on(turn, row.number)


def state_after(version: VersionRow) -> ServerState:
    """Return the strategy's state as it was stored with a version."""
    return ServerState.from_document(read_lineage(version.lineage)["server_state"])


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
    cancel_waiting(turn, tasks, "The round closed at its quorum.")
    if method is not None:
        move_round(turn, row, RoundEvent.SURVIVORS_FIXED)
        method.begin(turn, row)
        return
    move_round(turn, row, RoundEvent.QUORUM_REACHED)
    enqueue_after_commit(turn.session, AGGREGATE, {"study": row.study, "round": row.number})


def _step_opening(turn: Turn, row: RoundRow, verdict: Verdict) -> None:
    method = opening_of(turn.spec)
    if method is None or verdict is Verdict.FAIL:
        fail_round(turn, row, RoundEvent.OPENING_FAILED, method.why(turn, row) if method else "")
    elif method.step(turn, row, _tasks(turn, row)):
        move_round(turn, row, RoundEvent.SUM_OPENED)
        enqueue_after_commit(turn.session, AGGREGATE, {"study": row.study, "round": row.number})


def _end_opening(turn: Turn, row: RoundRow) -> None:
    method = opening_of(turn.spec)
    if method is not None:
        method.end(turn, row)
    end_masks(turn, row, "evaluate")


def _step_evaluating(turn: Turn, row: RoundRow, verdict: Verdict) -> None:
    masked = masked_judging.judged_under_masks(turn, row)
    if masked is None:
        complete_judging(turn, row)
    elif verdict is Verdict.FAIL:
        complete_judging(turn, row, masked_judging.why(turn, masked))
    elif masked_judging.step(turn, masked, _tasks(turn, row)):
        enqueue_after_commit(turn.session, AGGREGATE, {"study": row.study, "round": row.number})


_STEPS: dict[RoundState, Callable[[Turn, RoundRow, Verdict], None]] = {
    RoundState.INITIALISING: _step_initialising,
    RoundState.TRAINING: _step_training,
    RoundState.OPENING: _step_opening,
    RoundState.EVALUATING: _step_evaluating,
}


def _go_on(turn: Turn, number: int) -> None:
    turn.session.flush()
    if _versions_made(turn) < turn.spec.rounds:
        _open_training(turn, number + 1)
        return
    final = number
    if turn.spec.evaluation.final_version == "best-validation":
        final = best_version(judgements_of(turn.session, turn.study.digest), default=number)
    end_study(turn.session, turn.services, turn.study, StudyEvent.COMPLETE, final_version=final)


def _open_training(turn: Turn, number: int) -> None:
    participants = turn.participants()
    asked = trainers(participants, turn.now)
    remaining, minimum = len(taking_part(participants, turn.now)), turn.spec.participants.minimum_sites
    problem = sites_problem(turn.spec, len(asked))
    if problem is not None:
        end_study(turn.session, turn.services, turn.study, StudyEvent.FAIL, f"Round {number} cannot open: {problem}")
        return
    if not asked or remaining < minimum:
        reason = f"Round {number} cannot open: {remaining} approvals hold, {len(asked)} of them with training patients."
        end_study(turn.session, turn.services, turn.study, StudyEvent.FAIL, f"{reason} The study needs {minimum}.")
        return
    base_version = stores.newest_version(turn.session, turn.study.digest)
    state = state_after(base_version)
    base = ModelReference(
        number=base_version.number,
        weights_digest=state.weights,
        weights_bytes=base_version.weights_bytes,
        manifest_digest=base_version.manifest_digest,
    )
    row = _add_round(turn, number, RoundState.TRAINING)
    for participant in asked:
        ask(turn, participant.site, number, TaskKind.TRAIN, base, state.update_norm)
    method = opening_of(turn.spec)
    if method is not None:
        method.open(turn, row, [participant.site for participant in asked])


def _versions_made(turn: Turn) -> int:
    """Return how many versions were trained; version 0 was not."""
    return max(0, len(stores.versions(turn.session, turn.study.digest)) - 1)


def _add_round(turn: Turn, number: int, state: RoundState) -> RoundRow:
    row = RoundRow(
        study=turn.study.digest,
        number=number,
        state=state.value,
        opened_at=turn.now,
        deadline_at=turn.now + turn.spec.participants.deadline_seconds,
        phase_at=turn.now,
    )
    turn.session.add(row)
    turn.session.flush()
    turn.audit("hub", f"round.{state.value}", f"{turn.study.name}.r{number}", {"study": row.study, "round": number})
    return row


def _ask_next_initialiser(turn: Turn, row: RoundRow, asked: Sequence[TaskRow]) -> None:
    site = _initialisers_left(turn, asked)[0]
    ask(turn, site, row.number, TaskKind.INITIALISE, None)


def _initialisers_left(turn: Turn, asked: Sequence[TaskRow]) -> list[str]:
    known = {task.site for task in asked}
    return [p.site for p in initialisers(turn.participants(), turn.now) if p.site not in known]


def _tasks(turn: Turn, row: RoundRow) -> Sequence[TaskRow]:
    kind = _KIND_ASKED.get(RoundState(row.state))
    if kind is None:
        return ()
    return round_stores.tasks_of_round(turn.session, row.study, row.number, kind.value)
