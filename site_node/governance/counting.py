"""A counted cohort as the gate takes it in: the figures to approve, the groups to charge, and what stands in the way.

The hub is told nothing of it here. The researcher chooses the criteria and `cohort.minimum_patients`; a refusal that
followed from a count would tell, un-noised and uncharged, whether the count is above a threshold of their choosing.
"""

import sqlite3
from dataclasses import dataclass

import structlog

from protocol.messages import Reason
from protocol.noised_counts import is_possible_count
from protocol.study import StudySpec
from site_node.candidate import CohortFigures, cohort_path, read_cohort_figures
from site_node.cohort_members import CohortMembers, members_path, read_members
from site_node.durable import remove
from site_node.errors import GateError
from site_node.governance.approval import set_decisions_aside
from site_node.governance.context import GateContext
from site_node.governance.patient_accounts import keep_group
from site_node.governance.policy import Objection, Policy
from site_node.governance.privacy_ledger import accounts, what_would_fit
from site_node.governance.quality_records import keep_quality, quality_objection
from site_node.governance.reasons import sentence_of
from site_node.governance.records import VERSION_KINDS, StudyRecord, keep_version, set_study, study_record
from site_node.governance.same_patients import keep_same
from site_node.governance.told_figures import keep_counted
from site_node.governance.waiting import why_a_person

SAID_BEFORE_COUNTING = frozenset({Reason.UNKNOWN_NETWORK, Reason.UNKNOWN_TENSOR})
"""Why the worker counts nobody at all: found before it reads a patient, so the hub may be told at once."""
CANNOT_BE_APPROVED = (
    "{} The hub was not told and will not be: refuse the study with `wardround site approve DIR DIGEST --refuse`, of "
    "which it learns no reason, and tell the researcher yourself what you want known."
)
_log = structlog.get_logger()


@dataclass(frozen=True)
class Counted:
    """A study's cohort as the worker counted it, with `training` patients as they would be told."""

    record: StudyRecord
    policy: Policy
    figures: CohortFigures
    members: CohortMembers
    training: int
    objection: Objection | None

    def keep(self, database: sqlite3.Connection) -> None:
        """Keep the figures; the study waits, with a note for the administrator. Call within a transaction."""
        digest, figures, members, training = self.record.digest, self.figures, self.members, self.training
        if self.record.recount and (training, figures.held_out_patients > 0) != self._before:
            set_decisions_aside(database, digest)  # who decided has seen other figures
        set_study(
            database,
            digest,
            training_patients=training,
            training_images=figures.training_images if training else 0,
            held_out_patients=figures.held_out_patients,
            cohort_digest=figures.manifest_digest,
            training_cohort=keep_group(database, members.training) if training else None,
            held_out_cohort=keep_group(database, members.held_out) if figures.held_out_patients else None,
            state="awaiting",
            reason=None if self.objection is None else self.objection.reason,
            detail="" if self.objection is None else CANNOT_BE_APPROVED.format(self.objection.sentence),
        )
        version_zero = self.record.study.start.weights or figures.version_zero_digest
        if version_zero is not None:
            keep_version(database, digest, VERSION_KINDS, 0, version_zero)
        keep_quality(database, digest, figures.quality if training else None)
        keep_counted(database, self.record.study, members, training)
        keep_same(database, members.merged)  # from now on what one was charged, all bear; the approval looks again
        if self.objection is None and self.policy.approval == "person":
            self._warn(database)

    @property
    def _before(self) -> tuple[int, bool]:
        return self.record.training_patients, self.record.held_out_patients > 0

    def _warn(self, database: sqlite3.Connection) -> None:
        """Say beside the study what a person should weigh: why a policy would not have approved it."""
        record = study_record(database, self.record.digest)
        why = None if record is None else why_a_person(database, record, self.policy)
        if why is not None:
            set_study(database, self.record.digest, detail=why)


def count(context: GateContext, record: StudyRecord) -> Counted | None:
    """Return the cohort that the worker handed over for a study, or None while there is none."""
    members = CohortMembers(study_digest=record.digest)
    try:
        figures = read_cohort_figures(context.paths, record.digest)
        if figures is not None and figures.recount != record.recount:
            forget_count(context, record.digest)
            return None
        if figures is not None and figures.problem in (None, Reason.BUDGET_SPENT):
            members = read_members(context.paths, record.digest, figures.members_digest)
    except GateError as error:
        _log.error("cohort_refused", study=record.digest, why=str(error))
        figures = CohortFigures(study_digest=record.digest, problem=Reason.INTERNAL)
    if figures is None:
        return None
    policy = context.policy()
    trains = len(members.training) >= _minimum(record.study, policy)
    training = figures.training_patients if trains else 0
    objection = _objection(context, record, figures, members, training)
    return Counted(record, policy, figures, members, training, objection)


def forget_count(context: GateContext, study_digest: str) -> None:
    """Take away what the worker handed over: it counts again."""
    remove(cohort_path(context.paths, study_digest))
    remove(members_path(context.paths, study_digest))


def _objection(
    context: GateContext, record: StudyRecord, figures: CohortFigures, members: CohortMembers, training: int
) -> Objection | None:
    if figures.problem is None and not _are_of(members, figures, record.study):
        return Objection(Reason.INTERNAL, "The members of the cohort are not as many as its figures say.")
    policy, minimum = context.policy(), _minimum(record.study, context.policy())
    lost_training = training == 0 and members.spent_training and len(members.matching) >= minimum
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


def _are_of(members: CohortMembers, figures: CohortFigures, study: StudySpec) -> bool:
    """Tell whether figures can be those of a cohort: exact, or noised as the study says. Pure."""
    training, held_out = _public_figures(members)
    epsilon, told = study.privacy.count_epsilon, figures.training_patients
    if figures.count_epsilon != epsilon or figures.held_out_patients != held_out:
        return False
    if epsilon is None or not members.training:
        return told == training
    return is_possible_count(told, len(members.training), study.cohort.minimum_patients, epsilon)


def _public_figures(members: CohortMembers) -> tuple[int, int]:
    """Return the figures to approve: who matches the study, also those left out; 0 if nobody else is there. Pure."""
    training = len(members.training) + len(members.spent_training) if members.training else 0
    return training, len(members.held_out) + len(members.spent_held_out) if members.held_out else 0


def _minimum(study: StudySpec, policy: Policy) -> int:
    return max(study.cohort.minimum_patients, policy.minimum_patients)
