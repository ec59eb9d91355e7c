"""A study's way through the gate: proposed, its cohort counted, decided, charged, answered.

Between proposal and a person's decision nothing leaves that depends on a patient: what stands in a counted study's way
(too few, spent budgets) is noted for the administrator, and the study waits, as one does on which nobody decided yet.

The charge for the planned maximum and the approval's egress entry are one transaction: no approval leaves uncharged.
Patients whose lifetime budget does not cover the study are left out when its cohort is counted. If another study spends
what one of them would need before this one is charged, the cohort is counted once more.
"""

from dataclasses import dataclass

import structlog

from protocol.digest import canonical_json, digest_of
from protocol.errors import ProtocolError
from protocol.messages import Approval, Reason, StudyProposal
from protocol.privacy_events import PrivacyEvent
from protocol.study import parse_study
from site_node.governance import egress, high_water
from site_node.governance.approval import (
    POLICY_PERSON,
    SECONDS_A_DAY,
    Decision,
    decisions_on,
    decisions_since_counted,
    record_decision,
    rfc3339,
    set_decisions_aside,
    standing_of,
)
from site_node.governance.context import GateContext
from site_node.governance.counting import SAID_BEFORE_COUNTING, count, forget_count
from site_node.governance.ledger_heads import behind_objection, is_behind, note_head, restate_refused, tell_charge
from site_node.governance.policy import Objection, Policy, objection_to, planned_events
from site_node.governance.privacy_ledger import (
    accounts,
    charge,
    has_become_spent,
    is_charged,
    preset,
)
from site_node.governance.quality_records import quality_of
from site_node.governance.records import StudyRecord, set_study, study_record, study_records
from site_node.governance.told_figures import note_told
from site_node.governance.waiting import is_said, why_a_person
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
    """Take in a cohort that the worker has counted. A refusal leaves only for what no patient was read for."""
    counted = count(context, record)
    if counted is None:
        return 0
    with transaction(context.database):
        counted.keep(context.database)
        if counted.objection is not None and counted.objection.reason in SAID_BEFORE_COUNTING:
            _refuse(context, record.digest, counted.objection)
    problem = None if counted.objection is None else counted.objection.reason
    _log.info("cohort_counted", study=record.digest, problem=problem)
    return 1


def _decide(context: GateContext, record: StudyRecord) -> int:
    if record.state == "withdrawn" and record.digest in high_water.given_up(context.database):
        return 0  # for good: the hub was told once
    policy, now = context.policy(), context.clock()
    standing = standing_of(decisions_since_counted(context.database, record.digest), now)
    is_possible = record.state == "withdrawn" or record.reason is None  # else the count says no, and that stays here
    if standing == "undecided" and policy.approval == "automatic" and is_possible:
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
    return _approve(context, record, policy) if standing == "approved" and is_possible else 0


def _waits_for_a_person(context: GateContext, record: StudyRecord, policy: Policy) -> bool:
    """Tell whether the policy must not approve a study by itself, and say so where the administrator looks."""
    if is_said(record.detail, policy):
        return True  # found in an earlier pass; further figures only tell more
    why = why_a_person(context.database, record, policy)
    if why is None:
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
        spends = any(event is not None or patients == "training" for patients, event in planned)
        is_new = spends and not is_charged(database, record.digest)
        if objection is None and is_new:
            objection = behind_objection(database)
        if objection is not None:
            _refuse(context, record.digest, objection)
            return 1
        recounts = is_new and has_become_spent(database, accounts(database, policy), study, noise, record.cohorts)
        if recounts:
            set_study(database, record.digest, state="counting", recount=record.recount + 1)
            if decisions_on(database, record.digest)[-1].person == POLICY_PERSON:
                set_decisions_aside(database, record.digest)  # the policy looks again at what is counted again
        else:
            _charge_and_tell(context, record, planned)
    if recounts:
        context.checkpoint("cohort to be counted again")
        forget_count(context, record.digest)
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
            count_epsilon=record.study.privacy.count_epsilon if record.training_patients else None,
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
