"""A study's way through the gate: proposed, its cohort counted, decided, charged, answered.

The charge for the planned maximum and the approval's egress entry are one transaction: no approval leaves uncharged.
"""

from dataclasses import dataclass

import structlog

from protocol.digest import canonical_json, digest_of
from protocol.errors import ProtocolError
from protocol.messages import Approval, Reason, StudyProposal
from protocol.study import StudySpec, parse_study
from site_node.candidate import CohortFigures, read_cohort_figures
from site_node.errors import GateError
from site_node.governance.approval import (
    POLICY_PERSON,
    SECONDS_A_DAY,
    Decision,
    decisions_on,
    record_decision,
    rfc3339,
    standing_of,
)
from site_node.governance.context import GateContext
from site_node.governance.policy import Objection, Policy, objection_to, planned_events
from site_node.governance.privacy_ledger import budget_objection, budget_of, charge, ledger_entries
from site_node.governance.reasons import sentence_of
from site_node.governance.records import (
    VERSION_KINDS,
    StudyRecord,
    keep_version,
    set_study,
    study_record,
    study_records,
)
from site_node.sqlite import transaction

_log = structlog.get_logger()


@dataclass(frozen=True)
class Examined:
    """A proposal and the hospital's first objection to it."""

    message: StudyProposal
    objection: Objection | None


def examine(context: GateContext, message: StudyProposal, body: bytes) -> Examined:
    """Check a proposal's digest, its rules, and the hospital's policy."""
    try:
        study = parse_study(message.study)
        is_named = digest_of(message.study) == message.study_digest == study.digest
    except ProtocolError as error:
        return Examined(message, Objection(Reason.BAD_TASK, str(error)))
    if not is_named:
        return Examined(message, Objection(Reason.BAD_TASK, "The proposal's digest is not that of its study."))
    return Examined(message, objection_to(context.policy(), study, message.noise_multiplier))


def keep(context: GateContext, examined: Examined) -> str:
    """Keep a proposal, and refuse it at once if there is an objection. Call within a transaction."""
    message, objection = examined.message, examined.objection
    if study_record(context.database, message.study_digest) is not None:
        return "known"
    context.database.execute(
        "INSERT INTO studies (digest, specification, noise_multiplier, received_at, state) VALUES (?, ?, ?, ?, ?)",
        (
            message.study_digest,
            canonical_json(message.study),
            message.noise_multiplier,
            context.clock(),
            "counting",
        ),
    )
    if objection is not None:
        _refuse(context, message.study_digest, objection)
        return "refused by policy"
    return "study"


def advance_studies(context: GateContext) -> int:
    """Take each study one step further if it can go; return how many did."""
    done = 0
    for record in study_records(context.database, "counting"):
        done += _count(context, record)
        context.checkpoint("cohort read")
    for record in study_records(context.database, "awaiting", "withdrawn"):
        done += _decide(context, record)
        context.checkpoint("approval recorded")
    for record in study_records(context.database, "approved"):
        done += _withdraw(context, record)
    return done


def _count(context: GateContext, record: StudyRecord) -> int:
    try:
        figures = read_cohort_figures(context.paths, record.digest)
    except GateError as error:
        _log.error("cohort_refused", study=record.digest, why=str(error))
        figures = CohortFigures(study_digest=record.digest, problem=Reason.INTERNAL)
    if figures is None:
        return 0
    training = _training_patients(figures, record.study, context.policy())
    with transaction(context.database):
        set_study(
            context.database,
            record.digest,
            training_patients=training,
            training_images=figures.training_images if training else 0,
            held_out_patients=figures.held_out_patients,
            cohort_digest=figures.manifest_digest,
            state="awaiting",
        )
        if figures.version_zero_digest is not None:
            keep_version(context.database, record.digest, VERSION_KINDS, 0, figures.version_zero_digest)
        problem = figures.problem
        if problem is None and (figures.manifest_digest is None or training + figures.held_out_patients == 0):
            problem = Reason.TOO_FEW_PATIENTS
        if problem is not None:
            _refuse(context, record.digest, Objection(problem, sentence_of(problem)))
    _log.info("cohort_counted", study=record.digest, problem=problem)
    return 1


def _training_patients(figures: CohortFigures, study: StudySpec, policy: Policy) -> int:
    """Return the figure to approve: none below the study's or the hospital's minimum. Pure."""
    enough = figures.training_patients >= max(study.cohort.minimum_patients, policy.minimum_patients)
    return figures.training_patients if enough else 0


def _decide(context: GateContext, record: StudyRecord) -> int:
    policy, now = context.policy(), context.clock()
    standing = standing_of(decisions_on(context.database, record.digest), now)
    if standing == "undecided" and policy.approval == "automatic":
        decision = Decision(record.digest, "approved", POLICY_PERSON, now, now + policy.approval_days * SECONDS_A_DAY)
        with transaction(context.database):
            record_decision(context.database, decision, context.key)
        standing = "approved"
    if standing == "refused" and record.state == "awaiting":
        with transaction(context.database):
            _refuse(context, record.digest, Objection(Reason.NOT_APPROVED, "A person of this hospital refused it."))
        return 1
    return _approve(context, record, policy) if standing == "approved" else 0


def _approve(context: GateContext, record: StudyRecord, policy: Policy) -> int:
    study, noise = record.study, record.noise_multiplier
    objection = objection_to(policy, study, noise)
    with transaction(context.database) as database:
        budget = budget_of(ledger_entries(database), policy)
        planned = planned_events(study, noise, record.patients)
        if objection is None:
            objection = budget_objection(budget, study, planned)
        if objection is not None:
            _refuse(context, record.digest, objection)
            return 1
        charge(database, study, planned, record.cohort_digest or record.digest, context.clock())
        set_study(database, record.digest, state="approved", reason=None, detail="")
        expires_at = decisions_on(database, record.digest)[-1].expires_at
        context.send(
            Approval(
                site=context.settings.name,
                study_digest=record.digest,
                decision="approved",
                training_patients=record.training_patients,
                evaluates=record.held_out_patients > 0,
                expires_at=None if expires_at is None else rfc3339(expires_at),
            )
        )
    _log.info("study_approved", study=record.digest)
    return 1


def _withdraw(context: GateContext, record: StudyRecord) -> int:
    if standing_of(decisions_on(context.database, record.digest), context.clock()) != "withdrawn":
        return 0
    with transaction(context.database) as database:
        set_study(database, record.digest, state="withdrawn", reason=Reason.APPROVAL_WITHDRAWN)
        database.execute(
            "UPDATE tasks SET state = 'waiting' WHERE study = ? AND state = 'accepted'", (record.digest,)
        )  # they are decided again in this pass, and refused
        context.send(
            Approval(
                site=context.settings.name,
                study_digest=record.digest,
                decision="withdrawn",
                reason=Reason.APPROVAL_WITHDRAWN,
                evaluates=False,
            )
        )
    _log.info("study_withdrawn", study=record.digest)
    return 1


def _refuse(context: GateContext, study_digest: str, objection: Objection) -> None:
    set_study(context.database, study_digest, state="refused", reason=objection.reason, detail=objection.sentence)
    context.send(
        Approval(
            site=context.settings.name,
            study_digest=study_digest,
            decision="refused",
            reason=objection.reason,
            evaluates=False,
        )
    )
    _log.info("study_refused", study=study_digest, reason=objection.reason)
