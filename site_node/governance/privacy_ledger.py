"""The hospital's privacy ledger: every mechanism that any study may apply to its patients, appended before it can.

What is charged is the study's planned maximum, in the same transaction that records its approval; a study that ends
early, a refused task or a crash leave it charged: the ledger over-counts and never under-counts. It stores events, with
the patients they touch, and outlives studies; epsilon is recomputed from the events.

Within a study epsilon is composed from the events (PLD). Across studies, which are chosen after seeing earlier ones,
each patient has a filter against the lifetime's preset budget (`protocol/privacy_filter.py`).
"""

import functools
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from protocol.digest import digest_of
from protocol.messages import PrivacySpent, Reason
from protocol.noised_counts import figure_events
from protocol.privacy_accounting import PrivacyEvent, epsilon_of, training_event, training_events
from protocol.privacy_filter import FREE, Cost, LifetimeBudget, largest_epsilon, preset_budget
from protocol.study import StudySpec
from site_node.cohort_members import CohortMembers, SpentPatients
from site_node.governance.ledger_entries import (
    BudgetEntry,
    Group,
    LedgerEntry,
    all_entries,
    append_entry,
    ledger_entries,
)
from site_node.governance.patient_accounts import (
    Accounts,
    accounts_of,
    charged_patients,
    placings,
    plus,
    recorded_budget,
    some_cannot_afford,
    unaffording,
)
from site_node.governance.policy import Objection, Patients, Policy, planned_events
from site_node.governance.same_patients import same_patients

__all__ = ["LedgerEntry", "ledger_entries"]

SCHEMA = """
CREATE INDEX IF NOT EXISTS ledger_by_study ON ledger (
    json_extract(CAST(entry AS TEXT), '$.schema'), json_extract(CAST(entry AS TEXT), '$.study_digest'));
"""
SMALLEST_SAID_EPSILON = 0.01
Planned = Sequence[tuple[str, PrivacyEvent | None]]


@dataclass(frozen=True)
class StudyCharge:
    """What one study was charged: an upper bound for each of its patients who is in it under one pseudonym.

    `epsilon` None: trained without differential privacy. `held_out_unprotected`: judged on held-out patients un-noised,
    whom epsilon says nothing about.
    """

    study_digest: str
    epsilon: float | None
    delta: float
    held_out_unprotected: bool = False


def is_charged(database: sqlite3.Connection, study_digest: str) -> bool:
    """Tell whether a study's planned maximum stands in the ledger; never where there is nothing to charge."""
    row = database.execute(
        "SELECT 1 FROM ledger WHERE json_extract(CAST(entry AS TEXT), '$.schema') = ? "
        "AND json_extract(CAST(entry AS TEXT), '$.study_digest') = ? LIMIT 1",
        (LedgerEntry.model_fields["schema_"].default, study_digest),
    ).fetchone()
    return row is not None


def preset(database: sqlite3.Connection, policy: Policy) -> bool:
    """Record the policy's lifetime budget if it is new or changed; tell whether it was. Call within a transaction.

    The order is chosen with the budget and stays with it: another cap for single studies does not change it.
    """
    known = recorded_budget(all_entries(database))
    if known is not None and _is_of(known, policy):
        return False
    append_entry(database, BudgetEntry(budget=budget_of(policy)))
    return True


def budget_of(policy: Policy) -> LifetimeBudget:
    """Return the lifetime budget that a policy presets. Seconds the first time: the order is computed."""
    return preset_budget(
        policy.lifetime_epsilon,
        policy.lifetime_delta,
        maximum_epsilon=policy.maximum_epsilon,
        maximum_delta=policy.maximum_delta,
        composition=policy.composition,
    )


def accounts(database: sqlite3.Connection, policy: Policy) -> Accounts:
    """Return every patient's account as it stands, under the budget that the ledger names, or else the policy's."""
    entries = all_entries(database)
    known = recorded_budget(entries)
    return accounts_of(entries, known if known is not None and _is_of(known, policy) else budget_of(policy))


def charge(
    database: sqlite3.Connection,
    study: StudySpec,
    planned: Planned,
    cohorts: Mapping[str, str | None],
    nonce: Callable[[], str],
) -> list[LedgerEntry]:
    """Charge a study's planned maximum, once, and return the new entries. Call within the approval's transaction.

    Guarantee: no two charges have the same head, not even of the same study on a ledger that was restored.
    """
    if is_charged(database, study.digest):
        return []
    charged = []
    for patients, event in planned:
        entry = LedgerEntry.model_validate(
            {
                "study_digest": study.digest,
                "cohort_digest": cohorts[patients],
                "patients": patients,
                "delta": study.privacy.delta,
                "event": event,
                "nonce": nonce(),
            }
        )
        charged.append(entry.model_copy(update={"number": append_entry(database, entry)}))
    return charged


def study_costs(
    study: StudySpec, noise_multiplier: float | None, budget: LifetimeBudget, people: int = 1
) -> dict[Group, Cost]:
    """Return what a study costs a patient whom it trains on, and one whom it holds out; once, or as several people."""
    planned = planned_events(study, noise_multiplier, Patients(1, 1))
    groups: tuple[Group, ...] = ("training", "held-out")
    events = {group: [event.of_group(people) for event in _events(planned, group)] for group in groups}
    return {group: budget.cost(events[group], study.privacy.delta) for group in groups}


def spent_patients(
    database: sqlite3.Connection,
    held: Accounts,
    study: StudySpec,
    noise_multiplier: float | None,
    *,
    apart: bool = False,
) -> SpentPatients:
    """Return whom a study must leave out, because their budget does not cover its planned maximum.

    `apart`: a patient who has several pseudonyms may be counted under each of them, and must afford that.
    """
    costs = study_costs(study, noise_multiplier, held.budget)
    training, held_out = costs["training"], costs["held-out"]
    beside = _unaffording_apart(database, held, study, noise_multiplier) if apart else {}
    return SpentPatients(
        training=frozenset(unaffording(database, held, training)) | beside.get("training", set()),
        held_out=frozenset(unaffording(database, held, held_out)) | beside.get("held-out", set()),
        nobody_trains=not held.affords(FREE, training),
        nobody_judges=not held.affords(FREE, held_out),
    )


def has_become_spent(
    database: sqlite3.Connection,
    held: Accounts,
    study: StudySpec,
    noise_multiplier: float | None,
    cohorts: Mapping[str, str | None],
) -> bool:
    """Tell whether one of its patients does not afford a study: since the cohort was counted, others have spent."""

    def asked(group: Group) -> Callable[[int], Cost]:
        return lambda people: study_costs(study, noise_multiplier, held.budget, people)[group]

    charged = [group for group, cost in study_costs(study, noise_multiplier, held.budget).items() if cost != FREE]
    counted = [(cohort, asked(group)) for group in charged if (cohort := cohorts[group]) is not None]
    return some_cannot_afford(database, held, counted)


def _unaffording_apart(
    database: sqlite3.Connection, held: Accounts, study: StudySpec, noise_multiplier: float | None
) -> dict[Group, set[str]]:
    """Return who must not train, or not be judged: whoever would not afford it under each of their pseudonyms.

    Who may train may be in both groups, in whatever numbers; who may only be judged is held out under all of them.
    """

    @functools.cache
    def costs(people: int) -> dict[Group, Cost]:
        return study_costs(study, noise_multiplier, held.budget, people) if people else {}

    patients = set(same_patients(database).values())
    spent = dict(charged_patients(database, held)) if patients else {}
    found: dict[Group, set[str]] = {"training": set(), "held-out": set()}
    for own in patients:
        before = spent.get(own[0], FREE)
        for placing in placings(len(own)):
            cost = functools.reduce(plus, (costs(people).get(group, FREE) for group, people in placing.items()))
            if not held.affords(before, cost):
                found["training" if placing["training"] else "held-out"] |= set(own)
    return found


def what_would_fit(
    database: sqlite3.Connection, held: Accounts, study: StudySpec, members: CohortMembers, minimum: int
) -> Objection:
    """Say why a study is refused for its patients' budgets, and which epsilon would keep enough of them."""
    candidates = {*members.training, *members.withheld, *members.spent_training}
    spent = dict.fromkeys(candidates, FREE)
    spent.update((who, own) for who, own in charged_patients(database, held) if who in candidates)
    least = sorted(spent.values())[:minimum]
    epsilon = 0.0
    if len(least) == minimum and study.privacy.epsilon is not None:
        epsilon = largest_fitting(held.budget, study, plus(held.everybody, least[-1]))
    said = int(epsilon / SMALLEST_SAID_EPSILON) * SMALLEST_SAID_EPSILON  # rounded down: it must really fit
    sentence = f"Fewer than {minimum} patients have enough of their lifetime budget left for this study."
    if said > 0:
        return Objection(Reason.BUDGET_SPENT, f"{sentence} With privacy.epsilon at most {said:.2f} it would fit.")
    asked = {
        "site_rates.quality_epsilon": study.site_rates.quality_epsilon,
        "privacy.count_epsilon": study.privacy.count_epsilon,
        "privacy.receipt_epsilon": study.privacy.receipt_epsilon,
    }
    smaller = " or ".join(key for key, epsilon in asked.items() if epsilon is not None)
    if study.privacy.epsilon is None and smaller:
        return Objection(Reason.BUDGET_SPENT, f"{sentence} A smaller {smaller} would cost less.")
    return Objection(Reason.BUDGET_SPENT, f"{sentence} No smaller privacy.epsilon would fit either.")


def largest_fitting(budget: LifetimeBudget, study: StudySpec, spends: Cost) -> float:
    """Return the largest privacy.epsilon with which a study, else as it is, fits who has spent so much; 0 for none."""
    if budget.composition == "renyi":  # in a sum the study's own epsilon, and its delta, cover the figures
        spends = plus(spends, budget.cost(figure_events(study), study.privacy.delta))
    return largest_epsilon(
        budget,
        spends,
        study.privacy.delta,
        lambda noise: training_event(study, noise, study.maximum_training_tasks),
    )


def study_charges(entries: Sequence[LedgerEntry]) -> list[StudyCharge]:
    """Return what each study was charged, by PLD within the study. Pure but for the accountant's cache."""
    return [_charge_of(digest, entries) for digest in dict.fromkeys(entry.study_digest for entry in entries)]


def spent_so_far(study: StudySpec, noise_multiplier: float, tasks: int) -> PrivacySpent:
    """Return the site's own account of a study after so many training tasks. Never above what was charged."""
    events = training_events(study, noise_multiplier, tasks)
    return PrivacySpent(
        epsilon=epsilon_of(events, study.privacy.delta),
        delta=study.privacy.delta,
        events_digest=digest_of([event.model_dump(mode="json", by_alias=True) for event in events]),
    )


def _is_of(known: LifetimeBudget, policy: Policy) -> bool:
    wanted = (policy.lifetime_epsilon, policy.lifetime_delta, policy.composition)
    return (known.epsilon, known.delta, known.composition) == wanted


def _events(planned: Planned, group: Group) -> list[PrivacyEvent]:
    return [event for patients, event in planned if patients == group and event is not None]


def _charge_of(study_digest: str, entries: Sequence[LedgerEntry]) -> StudyCharge:
    own = [entry for entry in entries if entry.study_digest == study_digest]
    groups: tuple[Group, ...] = ("training", "held-out")
    # A pseudonym is trained on or held out, never both: the larger of the two bounds every one of the study.
    epsilons = [
        epsilon_of([e.event for e in own if e.event is not None and e.patients == group], own[0].delta)
        for group in groups
    ]
    bare = {entry.patients for entry in own if entry.event is None}
    return StudyCharge(study_digest, None if "training" in bare else max(epsilons), own[0].delta, "held-out" in bare)
