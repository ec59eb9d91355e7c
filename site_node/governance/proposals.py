"""A study's way through the gate: proposed, its cohort counted, decided, charged, answered.

The charge for the planned maximum and the approval's egress entry are one transaction: no approval leaves uncharged.
Patients whose lifetime budget does not cover the study are left out when its cohort is counted. If another study spends
what one of them would need before this one is charged, the cohort is counted once more.
"""

import sqlite3
from dataclasses import dataclass

import structlog

from protocol.digest import canonical_json, digest_of
from protocol.errors import ProtocolError
from protocol.messages import Approval, Reason, StudyProposal
from protocol.privacy_events import PrivacyEvent
from protocol.study import StudySpec, parse_study
from site_node.candidate import CohortFigures, cohort_path, read_cohort_figures
from site_node.cohort_members import CohortMembers, group_digest, members_path, read_members
from site_node.durable import remove
from site_node.errors import GateError
from site_node.governance import egress, high_water
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
from site_node.governance.ledger_heads import behind_objection, is_behind, note_head, restate_refused, tell_charge
from site_node.governance.patient_accounts import keep_group
from site_node.governance.policy import Objection, Policy, objection_to, planned_events
from site_node.governance.privacy_ledger import (
    accounts,
    charge,
    has_become_spent,
    is_charged,
    preset,
    what_would_fit,
)
from site_node.governance.quality_records import keep_quality, quality_objection, quality_of
from site_node.governance.reasons import sentence_of
from site_node.governance.records import (
    VERSION_KINDS,
    StudyRecord,
    keep_version,
    set_study,
    study_record,
    study_records,
)
from site_node.governance.told_figures import WAITS_FOR_A_PERSON, keep_counted, needs_a_person, note_told
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
    note_head(context.database, message.ledger_head)
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
    done = _preset_budget(context) + _take_up_again(context) + restate_refused(context)
    for record in study_records(context.database, "counting"):
        done += _count(context, record)
        context.checkpoint("cohort read")
    for record in study_records(context.database, "awaiting", "withdrawn"):
        done += _decide(context, record)
        context.checkpoint("approval recorded")
    for record in study_records(context.database, "approved"):
        done += _withdraw(context, record)
    return done


def _preset_budget(context: GateContext) -> int:
    if not study_records(context.database, "counting", "awaiting"):
        return 0
    with transaction(context.database) as database:
        changed = preset(database, context.policy())
    if changed:
        context.checkpoint("budget preset")
        _log.info("lifetime_budget_preset")
    return int(changed)


def _take_up_again(context: GateContext) -> int:
    """Take up the studies that were refused while the ledger was behind, once it is not."""
    refused = [known for known in study_records(context.database, "refused") if known.reason is Reason.LEDGER_BEHIND]
    if not refused or is_behind(context.database) or high_water.is_behind(context.paths, context.database):
        return 0
    with transaction(context.database):
        for known in refused:
            set_study(context.database, known.digest, state="awaiting", reason=None, detail="")
    return len(refused)


def _count(context: GateContext, record: StudyRecord) -> int:
    members = CohortMembers(study_digest=record.digest)
    try:
        figures = read_cohort_figures(context.paths, record.digest)
        if figures is not None and figures.recount != record.recount:
            _forget_count(context, record.digest)
            return 0
        if figures is not None and figures.problem in (None, Reason.BUDGET_SPENT):
            members = read_members(context.paths, record.digest, figures.members_digest)
    except GateError as error:
        _log.error("cohort_refused", study=record.digest, why=str(error))
        figures = CohortFigures(study_digest=record.digest, problem=Reason.INTERNAL)
    if figures is None:
        return 0
    trains = len(members.training) >= _minimum(record.study, context.policy())
    training, held_out = figures.training_patients if trains else 0, figures.held_out_patients
    with transaction(context.database) as database:
        set_study(
            database,
            record.digest,
            training_patients=training,
            training_images=figures.training_images if training else 0,
            held_out_patients=held_out,
            cohort_digest=figures.manifest_digest,
            training_cohort=_keep_group(database, members.training) if training else None,
            held_out_cohort=_keep_group(database, members.held_out) if held_out else None,
            state="awaiting",
        )
        version_zero = record.study.start.weights or figures.version_zero_digest
        if version_zero is not None:
            keep_version(database, record.digest, VERSION_KINDS, 0, version_zero)
        keep_quality(database, record.digest, figures.quality if training else None)
        keep_counted(database, record.digest, members if training else None)
        objection = _objection_to_count(context, record, figures, members, training)
        if objection is not None:
            _refuse(context, record.digest, objection)
    _log.info("cohort_counted", study=record.digest, problem=None if objection is None else objection.reason)
    return 1


def _objection_to_count(
    context: GateContext, record: StudyRecord, figures: CohortFigures, members: CohortMembers, training: int
) -> Objection | None:
    counted = (figures.training_patients, figures.held_out_patients)
    if figures.problem is None and _public_figures(members) != counted:
        return Objection(Reason.INTERNAL, "The members of the cohort are not as many as its figures say.")
    policy, minimum = context.policy(), _minimum(record.study, context.policy())
    without_budgets = len(members.training) + len(members.withheld) + len(members.spent_training)
    lost_training = training == 0 and members.spent_training and without_budgets >= minimum
    lost_held_out = not training and not members.held_out and members.spent_held_out
    if lost_training or lost_held_out:
        held = accounts(context.database, policy)
        return what_would_fit(context.database, held, record.study, members, minimum)
    problem = figures.problem
    if problem is None and (figures.manifest_digest is None or training + figures.held_out_patients == 0):
        problem = Reason.TOO_FEW_PATIENTS
    if problem is not None:
        return Objection(problem, sentence_of(problem))
    return quality_objection(record.study, figures, training)


def _keep_group(database: sqlite3.Connection, pseudonyms: list[str]) -> str:
    cohort = group_digest(pseudonyms)
    keep_group(database, cohort, pseudonyms)
    return cohort


def _forget_count(context: GateContext, study_digest: str) -> None:
    remove(cohort_path(context.paths, study_digest))
    remove(members_path(context.paths, study_digest))


def _public_figures(members: CohortMembers) -> tuple[int, int]:
    """Return the figures to approve: who matches the study, also those left out; 0 if nobody else is there. Pure."""
    training = len(members.training) + len(members.spent_training) if members.training else 0
    return training, len(members.held_out) + len(members.spent_held_out) if members.held_out else 0


def _minimum(study: StudySpec, policy: Policy) -> int:
    return max(study.cohort.minimum_patients, policy.minimum_patients)


def _decide(context: GateContext, record: StudyRecord) -> int:
    if record.state == "withdrawn" and record.digest in high_water.given_up(context.database):
        return 0  # for good: the hub was told once
    policy, now = context.policy(), context.clock()
    standing = standing_of(decisions_on(context.database, record.digest), now)
    if standing == "undecided" and policy.approval == "automatic":
        if _waits_for_a_person(context, record, policy):
            return 0
        decision = Decision(record.digest, "approved", POLICY_PERSON, now, now + policy.approval_days * SECONDS_A_DAY)
        with transaction(context.database):
            record_decision(context.database, decision, context.key)
        standing = "approved"
    if standing == "refused" and record.state == "awaiting":
        with transaction(context.database):
            _refuse(context, record.digest, Objection(Reason.NOT_APPROVED, "A person of this hospital refused it."))
        return 1
    return _approve(context, record, policy) if standing == "approved" else 0


def _waits_for_a_person(context: GateContext, record: StudyRecord, policy: Policy) -> bool:
    """Tell whether the policy must not approve a study by itself, and say so where the administrator looks."""
    why = WAITS_FOR_A_PERSON.format(policy.minimum_patients)
    if record.detail == why:
        return True  # found in an earlier pass; further figures only tell more
    if not needs_a_person(context.database, record.digest, policy.minimum_patients):
        return False
    with transaction(context.database) as database:
        set_study(database, record.digest, detail=why)
    _log.warning("study_waits_for_a_person", study=record.digest)
    return True


def _approve(context: GateContext, record: StudyRecord, policy: Policy) -> int:
    study, noise = record.study, record.noise_multiplier
    objection = high_water.objection_to(context, record.digest) or objection_to(policy, study, noise)
    planned = planned_events(study, noise, record.patients)
    with transaction(context.database) as database:
        is_new = bool(planned) and not is_charged(database, record.digest)
        if objection is None and is_new:
            objection = behind_objection(database)
        if objection is not None:
            _refuse(context, record.digest, objection)
            return 1
        recounts = is_new and has_become_spent(database, accounts(database, policy), study, noise, record.cohorts)
        if recounts:
            set_study(database, record.digest, state="counting", recount=record.recount + 1)
        else:
            _charge_and_tell(context, record, planned)
    if recounts:
        context.checkpoint("cohort to be counted again")
        _forget_count(context, record.digest)
    _log.info("study_counted_again" if recounts else "study_approved", study=record.digest)
    return 1


def _charge_and_tell(context: GateContext, record: StudyRecord, planned: list[tuple[str, PrivacyEvent | None]]) -> None:
    """Charge a study and tell the hub: first of the charge, then of the approval that rests on it."""
    database = context.database
    entries = charge(database, record.study, planned, record.cohorts, context.nonce)
    if entries:
        tell_charge(context, context.settings.name, entries)
    set_study(database, record.digest, state="approved", reason=None, detail="")
    note_told(database, record.digest)
    expires_at = decisions_on(database, record.digest)[-1].expires_at
    context.send(
        Approval(
            site=context.settings.name,
            study_digest=record.digest,
            decision="approved",
            training_patients=record.training_patients,
            evaluates=record.held_out_patients > 0,
            expires_at=None if expires_at is None else rfc3339(expires_at),
            quality=quality_of(database, record.digest),
        )
    )


def _withdraw(context: GateContext, record: StudyRecord) -> int:
    is_lost = record.digest in high_water.given_up(context.database)
    standing = standing_of(decisions_on(context.database, record.digest), context.clock())
    if not is_lost and standing not in ("withdrawn", "refused"):  # who refuses what was approved means the same
        return 0
    with transaction(context.database) as database:
        detail = high_water.GIVEN_UP if is_lost else ""
        set_study(database, record.digest, state="withdrawn", reason=Reason.APPROVAL_WITHDRAWN, detail=detail)
        database.execute(
            "UPDATE tasks SET state = 'waiting' WHERE study = ? AND state = 'accepted'", (record.digest,)
        )  # they are decided again in this pass, and refused
        egress.take_back(database, record.digest, context.clock())
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
