"""Tasks and their answers: decided, ordered from the worker, and the candidate admitted as the round's one output."""

from typing import Any

import structlog

from protocol.held_out import counts_field
from protocol.held_out_checks import counts_in
from protocol.manifest import Manifest
from protocol.message import Message
from protocol.messages import EvaluationReport, Reason, RoundTask, TaskKind, TaskRefusal, UpdateNotice, UpdateStep
from protocol.secure_messages import MaskedHistograms
from protocol.study import StudySpec
from site_node.candidate import Candidate, candidate_folder, payload_path, read_candidate
from site_node.durable import boot_id, remove
from site_node.errors import BaseNotHereError, GateError, PayloadDamagedError, SettingsError, SiteError
from site_node.governance import admission, hidden_answers, high_water, masking, spool
from site_node.governance.approval import decisions_on, standing_of
from site_node.governance.base_versions import base_manifest
from site_node.governance.context import GateContext
from site_node.governance.decide import History, StudyStanding, Verdict, decide
from site_node.governance.holding import hold_now
from site_node.governance.ledger_heads import is_behind
from site_node.governance.masking_records import sweep_erased
from site_node.governance.patient_accounts import group_size
from site_node.governance.policy import objection_to, planned_events
from site_node.governance.privacy_ledger import is_charged, spent_so_far
from site_node.governance.records import (
    VERSION_KINDS,
    StudyRecord,
    TaskRecord,
    input_digest,
    keep_version,
    known_version,
    newest_version,
    output_digest,
    set_task,
    study_record,
    task_record,
    task_records,
    tasks_given,
)
from site_node.governance.update_receipts import receipt_of
from site_node.sqlite import transaction

MEGABYTE = 1 << 20
_log = structlog.get_logger()


def decide_tasks(context: GateContext) -> int:
    """Decide the tasks that wait; return how many were accepted or refused."""
    done = 0
    for record in task_records(context.database, "waiting"):
        with transaction(context.database):
            verdict = _verdict(context, record)
            if verdict.word == "accept":
                task = record.task
                context.database.execute(
                    "INSERT OR IGNORE INTO inputs VALUES (?, ?, ?, ?)",
                    (task.study_digest, task.round, task.kind, record.digest),
                )
                _keep_base(context, task)
                set_task(context.database, record.task_id, "accepted")
                hidden_answers.begin(context, task)
            elif verdict.word == "refuse":
                _refuse(context, record, verdict.reason or Reason.INTERNAL)
        if verdict.word == "accept":
            sweep_erased(context.database)  # a new round erases what the last one left
        if verdict.word != "wait":
            _log.info("task_decided", task=record.task_id, verdict=verdict.word, reason=verdict.reason)
            done += 1
        context.checkpoint("task decided")
    return done


def advance_masks(context: GateContext) -> int:
    """Go on with the masked rounds as far as the hub's messages allow; return how many steps were done."""

    def refuse(task_id: str, reason: Reason) -> None:
        record = task_record(context.database, task_id)
        if record is not None and record.state == "accepted":
            _refuse(context, record, reason)

    return masking.advance_masking(context, refuse)


def admit_candidates(context: GateContext) -> int:
    """Turn the candidates of accepted tasks into their rounds' outputs; clear away what nobody asked for."""
    accepted = {record.task_id: record for record in task_records(context.database, "accepted")}
    done = 0
    for record in accepted.values():
        done += _admit(context, record)
    for folder in _folders(context):
        if folder not in accepted:
            remove(candidate_folder(context.paths, folder))
    return done


def account_ahead(context: GateContext) -> int:
    """Compute what accepted trainings will have spent while they train, so that their answers need not wait for it."""
    for record in task_records(context.database, "accepted"):
        known = study_record(context.database, record.task.study_digest)
        if record.task.kind is TaskKind.TRAIN and known is not None and known.noise_multiplier is not None:
            spent_so_far(known.study, known.noise_multiplier, _tasks_counted(context, record.task))
    return 0


def _tasks_counted(context: GateContext, task: RoundTask) -> int:
    return max(task.sequence, tasks_given(context.database, task.study_digest, task.kind))


def _verdict(context: GateContext, record: TaskRecord) -> Verdict:
    task, database = record.task, context.database
    known = study_record(database, task.study_digest)
    history = History(
        accepted_digest=input_digest(database, task),
        tasks_given=tasks_given(database, task.study_digest, task.kind),
        base_digest=known_version(database, task),
        newest_version=newest_version(database, task.study_digest),
        was_opened=known is not None and hidden_answers.is_difference(database, task, known.study),
    )
    standing = None if known is None else _standing(context, known)
    may_be_held = record.state == "waiting"  # what was begun is finished
    held = may_be_held and hold_now(database, context.settings.train_hours, task.kind, context.clock()) is not None
    verdict = decide(task, record.digest, context.settings.name, standing, history, held=held)
    if verdict.word == "accept" and task.base is not None:
        maximum = context.policy().maximum_update_megabytes * MEGABYTE
        if task.base.weights_bytes > maximum:
            return Verdict("refuse", Reason.POLICY)
    return verdict


def _keep_base(context: GateContext, task: RoundTask) -> None:
    known = study_record(context.database, task.study_digest)
    if known is None or task.base is None:
        return
    # With a mean of the versions the hub releases other weights than it trains on; else a number is one set of weights.
    kinds = (task.kind,) if known.study.strategy.releases_mean else VERSION_KINDS
    keep_version(context.database, known.digest, kinds, task.base.number, task.base.weights_digest)


def _standing(context: GateContext, known: StudyRecord) -> StudyStanding:
    study = known.study
    return StudyStanding(
        study=study,
        state=known.state,
        standing=standing_of(decisions_on(context.database, known.digest), context.clock()),
        objection=high_water.objection_to(context, known.digest)
        or objection_to(context.policy(), study, known.noise_multiplier),
        noise_multiplier=known.noise_multiplier,
        charged=is_charged(context.database, known.digest)
        or not planned_events(study, known.noise_multiplier, known.patients),
        training_patients=known.training_patients,
        held_out_patients=known.held_out_patients,
        ledger_behind=is_behind(context.database),
    )


def _admit(context: GateContext, record: TaskRecord) -> int:
    candidate = None
    try:
        candidate = read_candidate(context.paths, record.task_id)
        if candidate is None:
            return 0
        context.checkpoint("candidate read")
        if candidate.kind != "failure" and hidden_answers.is_awaited(context, record.task):
            return 0
        message = _checked_message(context, record, candidate)
    except SettingsError:
        raise  # a broken policy decides nothing, and refuses nothing either
    except BaseNotHereError as error:  # the update is finished; it waits until the agent has fetched its base again
        if context.is_news(f"base awaited: {record.task_id}"):
            _log.warning("base_awaited", task=record.task_id, why=error.message, remedy=error.remedy)
        return 0
    except SiteError as error:
        if isinstance(error, PayloadDamagedError) and _was_cut_off(candidate):
            _log.warning("payload_lost", task=record.task_id, next="the power failed; the worker makes it again")
            remove(candidate_folder(context.paths, record.task_id))
            return 1
        _log.error("candidate_refused", task=record.task_id, why=str(error))
        message = _refusal(context, record.task, error.reason)
    reason = message.reason if isinstance(message, TaskRefusal) else None
    with transaction(context.database):
        _answer(context, record, message, reason)
    if hidden_answers.is_hidden(message):
        sweep_erased(context.database)
    context.checkpoint("output recorded")
    remove(candidate_folder(context.paths, record.task_id))
    _log.info("task_answered", task=record.task_id, reason=reason)
    return 1


def _was_cut_off(candidate: Candidate | None) -> bool:
    """Tell whether the machine was started again since a payload was written that was not synced."""
    return candidate is not None and candidate.unsynced_in not in (None, boot_id())


def _checked_message(context: GateContext, record: TaskRecord, candidate: Candidate) -> Message:
    """Check a candidate and return the message that answers the task.

    Raises: SiteError with the reason if it may not leave.
    """
    task = record.task
    verdict = _verdict(context, record)  # the approval may have expired, the policy changed, since it was accepted
    if candidate.task_id != record.task_id:
        raise GateError("A candidate lies under another task's name.", "See the worker's log.")
    if candidate.kind == "failure" or verdict.word != "accept":
        reason = verdict.reason or candidate.reason or Reason.INTERNAL
        return _refusal(context, task, reason)
    known = study_record(context.database, task.study_digest)
    if known is None:
        raise GateError("A candidate's study is not known.", "Restart the gate.")
    study = known.study
    if task.kind is TaskKind.EVALUATE:
        return _evaluation_report(context, record, candidate, known, study)
    if candidate.kind != "update":
        raise GateError("A candidate is of another kind than its task.", "See the worker's log.")
    return _update_notice(context, record, candidate, known, study)


def _evaluation_report(
    context: GateContext, record: TaskRecord, candidate: Candidate, known: StudyRecord, study: StudySpec
) -> EvaluationReport | MaskedHistograms:
    task = record.task
    if candidate.kind != "evaluation" or task.base is None:
        raise GateError("A candidate is of another kind than its task.", "See the worker's log.")
    admission.check_evaluation(candidate, record.digest, study, known.held_out_patients)
    if masking.is_masked(task, study):
        return hidden_answers.masked_histograms(context, record, counts_in(study, candidate), study)
    counts: dict[str, Any] = {counts_field(study): counts_in(study, candidate)}
    return EvaluationReport(
        site=context.settings.name,
        task_id=task.task_id,
        task_digest=record.digest,
        study_digest=task.study_digest,
        version=task.base,
        noise_epsilon=study.evaluation.noise_epsilon,
        **counts,
    )


def _update_notice(
    context: GateContext, record: TaskRecord, candidate: Candidate, known: StudyRecord, study: StudySpec
) -> UpdateNotice:
    task, maximum = record.task, context.policy().maximum_update_megabytes * MEGABYTE
    terms = admission.payload_terms(task, study, _base_manifest(context, task), maximum)
    digest, size = admission.check_description(candidate, record.digest, terms)
    trained = group_size(context.database, known.training_cohort)
    receipt = receipt_of(task, study, candidate, known.training_patients, trained)
    kept = spool.keep_payload(context.paths, payload_path(context.paths, record.task_id), digest, size)
    context.checkpoint("payload kept")
    try:
        admission.check_payload(kept, candidate, terms, maximum)
    except SiteError:
        remove(kept)
        raise
    training = task.kind is TaskKind.TRAIN
    steps: list[UpdateStep] = [*candidate.steps]
    key_id = None
    if terms.vector is not None:
        hidden = hidden_answers.hide(context, known, task, kept, terms.vector)
        digest, size, key_id = hidden.digest, hidden.size, hidden.key_id
        steps.append(hidden.step)
    by_patients = training and study.strategy.weighting != "equal" and terms.vector is None
    noise = known.noise_multiplier if training else None
    given = _tasks_counted(context, task)
    return UpdateNotice(
        site=context.settings.name,
        task_id=task.task_id,
        task_digest=record.digest,
        study_digest=task.study_digest,
        round=task.round,
        base_digest=None if task.base is None else task.base.weights_digest,
        payload_digest=digest,
        payload_bytes=size,
        manifest_digest=candidate.manifest_digest or "",
        steps=steps,
        weight=float(known.training_patients) if by_patients else 1.0,
        privacy=None if noise is None else spent_so_far(study, noise, given),
        uncut=candidate.uncut,
        receipt=receipt,
        key_id=key_id,
    )


def _base_manifest(context: GateContext, task: RoundTask) -> Manifest | None:
    if task.base is None:
        return None
    return base_manifest(context.paths, task.base.weights_digest)


def _refuse(context: GateContext, record: TaskRecord, reason: Reason) -> None:
    if record.state == "accepted":
        _answer(context, record, _refusal(context, record.task, reason), reason)
        return
    set_task(context.database, record.task_id, "refused", reason)
    context.send(_refusal(context, record.task, reason))


def _answer(context: GateContext, record: TaskRecord, message: Message, reason: Reason | None = None) -> None:
    """Make a message the round's one output. Call within a transaction."""
    task = record.task
    set_task(context.database, record.task_id, "answered", reason)
    if hidden_answers.is_hidden(message):
        masking.note_masked(context, task)
    if output_digest(context.database, task) is None:
        number = context.send(message)
        context.database.execute(
            "INSERT INTO outputs VALUES (?, ?, ?, ?, ?)",
            (task.study_digest, task.round, task.kind, message.digest, number),
        )


def _refusal(context: GateContext, task: RoundTask, reason: Reason) -> TaskRefusal:
    return TaskRefusal(site=context.settings.name, task_id=task.task_id, study_digest=task.study_digest, reason=reason)


def _folders(context: GateContext) -> list[str]:
    try:
        return [path.name for path in context.paths.candidates.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return []
