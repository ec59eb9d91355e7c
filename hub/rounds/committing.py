"""The close of a round: its accepted updates become one version, exactly once.

The sum is computed outside any transaction from what the database says, and stored under the digest of its bytes; then
one transaction checks that the round is still open for it, registers the version, marks the updates as counted and asks
for what comes next. Killed before that transaction, nothing has happened; run twice, the second finds the round closed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from hub.aggregation.choosing import strategy_of
from hub.aggregation.differences import sent_as_difference
from hub.aggregation.strategy import CountedUpdate, RoundFacts, ServerState
from hub.errors import AggregationError, BlobError, NotFoundError
from hub.registry.coordinator import register_version
from hub.registry.lineage import LineageParticipant
from hub.rounds.asking import Turn, turn_on
from hub.rounds.course import fail_round, judge_or_go_on
from hub.rounds.opening_methods import opening_of
from hub.rounds.participants import APPROVED
from hub.rounds.pooling import pool_counts
from hub.rounds.rate_memory import Rating, rating_of, with_rates
from hub.rounds.training_rounds import state_after
from hub.rounds.transitions import RoundEvent, RoundState
from hub.rounds.used_patients import used_by_task, used_in_lineage
from hub.rounds.waiting_updates import weight_of_age
from hub.services import Services
from hub.storage import round_stores, stores
from hub.storage.database import Session
from hub.storage.receipt_stores import receipts_of_study
from hub.storage.tables import RoundRow, StudyRow, UpdateRow
from hub.studies.specification import stored_study
from protocol.errors import ProtocolError
from protocol.messages import TaskKind, UpdateNotice, expect
from protocol.round_receipts import UsedPatients
from protocol.signing import read_unverified
from protocol.study import StudySpec

_FAILURES = {
    RoundState.AGGREGATING: RoundEvent.CLOSE_FAILED,
    RoundState.OPENING: RoundEvent.OPENING_FAILED,
}
_log = structlog.get_logger()


@dataclass(frozen=True)
class Work:
    """What a close works on, as the database had it."""

    spec: StudySpec
    state: ServerState
    updates: tuple[CountedUpdate, ...]
    facts: RoundFacts
    rating: Rating | None


def close_round(services: Services, study: str, round: int) -> bool:  # noqa: A002 - the queue's word
    """Make the version of a round that is aggregating; False if there is nothing (more) to do."""
    with services.reading() as session:
        work = _work(session, study, round)
    if work is None:
        return _prepare_opening(services, study, round)
    _log.info("round_closing", study=work.spec.name, round=round, updates=len(work.updates))
    method = opening_of(work.spec)
    try:
        updates = work.updates if method is None else (method.sum_of(services, study, round),)
        stepped = strategy_of(work.spec).apply(work.state, updates, services.blobs, work.facts)
        rated = with_rates(work.spec, work.rating, work.state, stepped, updates, services.blobs)
        state = sent_as_difference(work.spec, round, work.state, rated, services.blobs)
    except (AggregationError, BlobError, NotFoundError, ProtocolError) as error:
        return _give_up(services, study, round, str(error))
    closed = _commit(services, study, round, work, state)
    for update in work.updates:
        services.blobs.will_rest(update.blob)
    return closed


def _prepare_opening(services: Services, study: str, number: int) -> bool:
    with services.reading() as session:
        row, spec = round_stores.round_of(session, study, number), turn_on(session, services, study).spec
        judging = row.state == RoundState.EVALUATING
        method = opening_of(spec) if row.state == RoundState.OPENING else None
    if judging:
        return pool_counts(services, study, number)
    try:
        return method is not None and method.prepare(services, study, number)
    except (AggregationError, BlobError, NotFoundError, ProtocolError) as error:
        return _give_up(services, study, number, str(error))


def _work(session: Session, study: str, number: int) -> Work | None:
    row = stores.study(session, study)
    if round_stores.round_of(session, study, number).state != RoundState.AGGREGATING:
        return None
    spec = stored_study(row.specification)
    updates = round_stores.updates_taken(session, study, number)
    counted = tuple(_counted(row, spec.pace.staleness_exponent) for row in updates)
    before = state_after(stores.newest_version(session, study))
    return Work(spec, before, counted, _facts(session, row, number), rating_of(session, spec, study))


def _facts(session: Session, study: StudyRow, number: int) -> RoundFacts:
    asked = {task.site for task in round_stores.tasks_of_round(session, study.digest, number, TaskKind.TRAIN.value)}
    able = {p.site for p in stores.participants(session, study.digest) if p.state == APPROVED and p.training_patients}
    return RoundFacts(number, len(asked | able), study.noise_multiplier)


def _counted(row: UpdateRow, staleness_exponent: float) -> CountedUpdate:
    factor = weight_of_age(row.staleness, staleness_exponent)
    return CountedUpdate(row.site, row.blob, row.weight, _uncut(row), factor, round=row.round)


def _uncut(row: UpdateRow) -> float | None:
    return expect(read_unverified(row.notice), UpdateNotice).uncut


def _commit(services: Services, study: str, number: int, work: Work, state: ServerState) -> bool:
    with services.transaction() as session:
        row = round_stores.round_of(session, study, number)
        if row.state != RoundState.AGGREGATING:
            return False
        turn = Turn(session, services, stores.study(session, study), work.spec)
        updates = round_stores.updates_taken(session, study, number)
        base = stores.newest_version(session, study)
        epsilon, delta = round_stores.privacy_spent(session, study, number)
        version = register_version(
            session,
            services,
            study=turn.study,
            round=number,
            weights_digest=state.released,
            weights_bytes=services.blobs.size(state.released),
            manifest_digest=base.manifest_digest,
            parents=[base.weights_digest],
            participants=_lineage_of(session, work.spec, updates),
            epsilon=epsilon,
            delta=delta,
            server_state=state.document(),
        )
        for update in updates:
            update.counted_in = number
        judge_or_go_on(turn, row, version)
    return True


def _give_up(services: Services, study: str, number: int, reason: str) -> bool:
    _log.error("round_not_closed", round=number, reason=reason)
    with services.transaction() as session:
        row: RoundRow = round_stores.round_of(session, study, number)
        event = _FAILURES.get(RoundState(row.state))
        if event is not None:
            fail_round(turn_on(session, services, study), row, event, reason)
    return False


def _lineage_of(session: Session, spec: StudySpec, updates: Sequence[UpdateRow]) -> list[LineageParticipant]:
    tasks = round_stores.tasks_by_id(session, [update.task_id for update in updates])
    is_told = spec.privacy.receipt_epsilon is not None and len(updates) > 0
    used = used_by_task(spec, receipts_of_study(session, updates[0].study)) if is_told else {}
    _tell_short(updates, used)
    found = []
    for update in updates:
        task = tasks.get(update.task_id)
        digest = task.digest if task else ""
        own = used_in_lineage(update, used)
        found.append(LineageParticipant(update.site, update.weight, update.blob, digest, update.staleness, own))
    return found


def _tell_short(updates: Sequence[UpdateRow], used: Mapping[str, UsedPatients]) -> None:
    short = sorted({update.site for update in updates if update.task_id in used and used[update.task_id].is_short})
    if short:
        _log.warning("trained_on_a_fraction", round=max(update.round for update in updates), sites=short)
