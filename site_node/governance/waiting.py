"""Why a study waits for a person where the policy would approve it: what the policy must not tell by itself.

Whatever the reason, nothing is told: seen from the hub, a study that waits is one on which nobody has decided yet.
"""

import sqlite3

from protocol.noised_counts import is_clear_of
from protocol.privacy_terms import Privacy
from site_node.governance.ledger_entries import GapEntry, LedgerEntry, all_entries
from site_node.governance.patient_accounts import members_of
from site_node.governance.policy import Policy
from site_node.governance.records import StudyRecord
from site_node.governance.same_patients import first_pseudonyms
from site_node.governance.told_figures import fewest_judged, tells_a_small_group

_DECIDE = "A person has to decide: approve it with `wardround site approve`, or refuse it with `--refuse`."
OWN_MINIMUM = (
    "It sets a minimum of training patients above this hospital's {} (`minimum_patients`): whether they are as many "
    f"would be told by the answer itself. {_DECIDE}"
)
SMALL_GROUP = (
    "Its exact numbers of patients (training patients, also 0; held-out ones, where not noised), with the numbers told "
    f"before, would tell a group of fewer than {{}} patients apart (`minimum_patients`). {_DECIDE}"
)
NEAR_MINIMUM = (
    "Its number of training patients, noised, is not far enough above this hospital's {} (`minimum_patients`): whether "
    "they are as many would be told by the answer itself. With a larger privacy.count_epsilon less is enough. "
    f"{_DECIDE}"
)
NOISED_COUNT = (
    "Its number of training patients leaves noised, and is charged when it leaves (privacy.count_epsilon). Whether the "
    f"policy answers would follow from that number, also where nothing leaves and nothing is charged. {_DECIDE}"
)
NOISED_RECEIPTS = (
    "Its receipts tell in each round, noised and charged, how many of its patients have opted out since they were "
    f"counted (privacy.receipt_epsilon). {_DECIDE}"
)
FEW_HELD_OUT = (
    "Its un-noised evaluation judges fewer than {} patients of a split (`minimum_held_out_patients`): the figures "
    f"would come close to each one's label and score. With evaluation.noise_epsilon it would not wait. {_DECIDE}"
)
TRAINED_BEFORE = (
    "It would hold patients out un-noised on whom another study trained with differential privacy: what it tells of "
    f"them no epsilon bounds (`hold_out_trained`). With evaluation.noise_epsilon it would not wait. {_DECIDE}"
)


def why_a_person(database: sqlite3.Connection, record: StudyRecord, policy: Policy) -> str | None:
    """Say why a policy must not approve a counted study by itself, for the administrator alone; None where it may."""
    study, least, least_judged = record.study, policy.minimum_patients, policy.minimum_held_out_patients
    if study.cohort.minimum_patients > least > 1:
        return OWN_MINIMUM.format(least)
    if least > 1 and _is_near(record, policy):
        return NEAR_MINIMUM.format(least)
    fewest = fewest_judged(database, record.digest)
    if fewest is not None and fewest < least_judged:
        return FEW_HELD_OUT.format(least_judged)
    if tells_a_small_group(database, record.digest, least, least_judged):
        return SMALL_GROUP.format(least)
    if fewest is not None and policy.hold_out_trained == "person" and _holds_out_trained(database, record):
        return TRAINED_BEFORE
    return _numbers_told(study.privacy) if policy.approval == "automatic" else None  # whatever was counted


def is_said(detail: str, policy: Policy) -> bool:
    """Tell whether a note is one of these, under the policy as it stands. Pure."""
    least, least_judged = policy.minimum_patients, policy.minimum_held_out_patients
    said = {words.format(least) for words in (OWN_MINIMUM, SMALL_GROUP, NEAR_MINIMUM)}
    said |= {FEW_HELD_OUT.format(least_judged), NOISED_COUNT, NOISED_RECEIPTS}
    return detail in (said | {TRAINED_BEFORE} if policy.hold_out_trained == "person" else said)


def _numbers_told(privacy: Privacy) -> str | None:
    if privacy.count_epsilon is not None:
        return NOISED_COUNT
    return None if privacy.receipt_epsilon is None else NOISED_RECEIPTS


def _is_near(record: StudyRecord, policy: Policy) -> bool:
    """Tell whether a noised number of training patients leaves in doubt that the exact one reaches the minimum."""
    privacy, told = record.study.privacy, record.training_patients
    if privacy.count_epsilon is None or not told:
        return False
    chance = min(privacy.delta, policy.maximum_delta)
    return not is_clear_of(told, policy.minimum_patients, privacy.count_epsilon, chance)


def _holds_out_trained(database: sqlite3.Connection, record: StudyRecord) -> bool:
    """Tell whether another study was charged for training on a held-out patient, under any of their pseudonyms.

    Of a lost charge: on anybody.
    """
    if record.held_out_cohort is None:
        return False
    cohorts = set()
    for entry in all_entries(database):
        if isinstance(entry, GapEntry) and entry.charged.get("training"):
            return True
        if isinstance(entry, LedgerEntry) and entry.patients == "training" and entry.event is not None:
            cohorts |= {entry.cohort_digest} if entry.study_digest != record.digest else set()
    first = first_pseudonyms(database)
    held_out, *trained = (
        {first.get(who, who) for who in members_of(database, cohort)} for cohort in (record.held_out_cohort, *cohorts)
    )
    return any(not held_out.isdisjoint(members) for members in trained)
