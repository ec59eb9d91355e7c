"""The course of a study: what follows when a round has made its version, was judged, or has failed.

The next round opens, or the study ends: after its rounds, early for want of improvement, or for want of sites. In the
caller's transaction.
"""

from hub.rounds import masked_judging
from hub.rounds.asking import Turn, ask, cancel_waiting
from hub.rounds.judgements import judgements_of
from hub.rounds.masking import end_masks, open_masks
from hub.rounds.moving import move_round
from hub.rounds.opening_methods import opening_of
from hub.rounds.participants import judges
from hub.rounds.scoring import best_version, evaluations_without_gain, unheard_terms, version_of
from hub.rounds.training_rounds import open_training, problem_with_opening, seconds_for
from hub.rounds.transitions import OPEN_ROUND_STATES, WAITING_TASK_STATES, RoundEvent, RoundState
from hub.rounds.waiting_updates import is_buffered
from hub.storage import round_stores, stores
from hub.storage.tables import RoundRow, TaskRow, VersionRow
from hub.studies.ending import end_study
from hub.studies.lifecycle import StudyEvent
from protocol.messages import ModelReference, TaskKind
from protocol.secure_aggregation.histograms import sums_histograms

_OPEN = sorted(state.value for state in OPEN_ROUND_STATES)


def judge_or_go_on(turn: Turn, row: RoundRow, version: VersionRow) -> None:
    """After a version's commit: ask for its evaluation if it is due, else complete the round.

    Buffered rounds do not wait for evaluations: the next one opens at once.
    """
    turn.session.flush()
    made = versions_made(turn)
    due = made % turn.spec.evaluation.every == 0 or made == turn.spec.rounds
    asked = [judge.site for judge in judges(turn.participants(), turn.now)] if due else []
    problem = masked_judging.judges_problem(turn.spec, len(asked)) if asked else None
    if not asked or problem is not None:
        move_round(turn, row, RoundEvent.VERSION_COMMITTED_UNJUDGED, problem or "")
        go_on(turn)
        return
    move_round(turn, row, RoundEvent.VERSION_COMMITTED, seconds=seconds_for(turn, TaskKind.EVALUATE, asked))
    _ask_judges(turn, row, version, asked)
    if is_buffered(turn.spec):
        go_on(turn)


def complete_judging(turn: Turn, row: RoundRow, reason: str = "") -> None:
    """Close a round whose version was judged, or stays unjudged for a reason, and go on with the study."""
    tasks = round_stores.tasks_of_round(turn.session, row.study, row.number, TaskKind.EVALUATE.value)
    cancel_waiting(turn, tasks, reason or "No report before the deadline.")
    end_masks(turn, row, "evaluate")
    move_round(turn, row, RoundEvent.JUDGED, reason)
    go_on(turn)


def fail_round(turn: Turn, row: RoundRow, event: RoundEvent, reason: str) -> None:
    """End a round without a version. With a spare task left the next round tries again; else the study has failed.

    The round that tries again has the next number: new keys, new noise, another task in every site's ledger.
    """
    if not is_buffered(turn.spec):  # whoever trains in buffered rounds trains for the next version as well
        cancel_waiting(turn, _asked_in(turn, row), reason)
    end_opening(turn, row)
    move_round(turn, row, event, reason)
    turn.session.flush()
    missing = turn.spec.rounds - versions_made(turn)
    if row.number > 0 and row.number + missing <= turn.spec.maximum_training_tasks:
        _open_next(turn)
        return
    _end(turn, StudyEvent.FAIL, f"Round {row.number} failed. {reason}")


def go_on(turn: Turn) -> None:
    """Open the next round, or end the study if it has made its versions and all are judged, or improves no more."""
    turn.session.flush()
    open_states = {row.state for row in round_stores.open_rounds(turn.session, turn.study.digest, _OPEN)}
    if versions_made(turn) >= turn.spec.rounds:
        if not open_states:
            unheard = unheard_terms(turn.spec, judgements_of(turn.session, turn.study.digest))
            _end(turn, StudyEvent.COMPLETE, unheard, _final_version(turn))
        return
    in_vain = _evaluations_in_vain(turn)
    if in_vain is not None:
        reason = f"It ended early: {in_vain} evaluations without a better validation AUC."
        _end(turn, StudyEvent.COMPLETE, reason, best_version(judgements_of(turn.session, turn.study.digest), 0))
    elif open_states <= {RoundState.EVALUATING}:
        _open_next(turn)


def close_all(turn: Turn, reason: str) -> None:
    """Cancel all that is open in a study that ends."""
    waiting = [state.value for state in WAITING_TASK_STATES]
    cancel_waiting(turn, round_stores.tasks_in(turn.session, turn.study.digest, waiting), reason)
    for row in round_stores.open_rounds(turn.session, turn.study.digest, _OPEN):
        end_opening(turn, row)
        move_round(turn, row, RoundEvent.ABANDONED, reason)


def end_opening(turn: Turn, row: RoundRow) -> None:
    """Note that a round's sums, of updates and of held-out counts, will not be opened any more."""
    method = opening_of(turn.spec)
    if method is not None:
        method.end(turn, row)
    end_masks(turn, row, "evaluate")


def versions_made(turn: Turn) -> int:
    """Return how many versions were trained; version 0 was not."""
    return max(0, len(stores.version_numbers(turn.session, turn.study.digest)) - 1)


def _ask_judges(turn: Turn, row: RoundRow, version: VersionRow, sites: list[str]) -> None:
    reference = ModelReference(
        number=version.number,
        weights_digest=version.weights_digest,
        weights_bytes=version.weights_bytes,
        manifest_digest=version.manifest_digest,
    )
    ask(turn, sites, row.number, TaskKind.EVALUATE, reference)
    if sums_histograms(turn.spec):
        open_masks(turn, row, "evaluate", sites)


def _open_next(turn: Turn) -> None:
    last = round_stores.last_round(turn.session, turn.study.digest)
    number = 1 if last is None else last.number + 1
    problem = problem_with_opening(turn, number)
    if problem is not None:
        _end(turn, StudyEvent.FAIL, problem)
        return
    open_training(turn, number)


def _end(turn: Turn, event: StudyEvent, reason: str, final_version: int | None = None) -> None:
    close_all(turn, reason or "The study has made its last version.")
    end_study(turn.session, turn.services, turn.study, event, reason, final_version=final_version)


def _final_version(turn: Turn) -> int:
    newest = stores.newest_version(turn.session, turn.study.digest).number
    if turn.spec.evaluation.final_version == "last":
        return newest
    return best_version(judgements_of(turn.session, turn.study.digest), default=newest)


def _evaluations_in_vain(turn: Turn) -> int | None:
    """Return how many evaluations brought no better version, if they are as many as the study has patience for."""
    patience = turn.spec.evaluation.patience
    if patience is None:
        return None
    judging = {row.number for row in round_stores.open_rounds(turn.session, turn.study.digest, _OPEN)}
    known = [r for r in judgements_of(turn.session, turn.study.digest) if version_of(r) not in judging]
    in_vain = evaluations_without_gain(known)
    return in_vain if in_vain >= patience else None


def _asked_in(turn: Turn, row: RoundRow) -> list[TaskRow]:
    kinds = (TaskKind.INITIALISE, TaskKind.TRAIN)
    return [t for kind in kinds for t in round_stores.tasks_of_round(turn.session, row.study, row.number, kind.value)]
