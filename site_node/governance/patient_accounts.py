"""Each patient's account over all studies, recomputed from the ledger's events. Pseudonyms and sums stay in the gate.

A patient is charged for the studies whose groups they are in, and for every gap: nobody knows whom that touched.
What one study costs a patient is composed within the study; over studies the lifetime's filter adds it up.

A patient who has several pseudonyms bears what each of them was charged (`same_patients.py`). Two of them in one group
are two patients' data in each of its mechanisms, which costs more than twice (`PrivacyEvent.of_group`).
"""

import functools
import json
import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from protocol.privacy_events import PrivacyEvent
from protocol.privacy_filter import FREE, Cost, LifetimeBudget
from site_node.cohort_members import group_digest
from site_node.errors import GateError
from site_node.governance.ledger_entries import BudgetEntry, Entry, GapEntry, LedgerEntry
from site_node.governance.same_patients import SCHEMA as SAME_PATIENTS_SCHEMA
from site_node.governance.same_patients import same_patients

SCHEMA = (
    SAME_PATIENTS_SCHEMA
    + """
CREATE TABLE IF NOT EXISTS group_members (
    cohort TEXT NOT NULL, pseudonym TEXT NOT NULL, PRIMARY KEY (cohort, pseudonym)) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS group_members_keep BEFORE UPDATE ON group_members
    BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER IF NOT EXISTS group_members_stay BEFORE DELETE ON group_members
    BEGIN SELECT RAISE(ABORT, 'append only'); END;
"""
)


@dataclass(frozen=True)
class Accounts:
    """What every charged group costs its members, and what every patient bears; under one lifetime budget.

    `events` are each group's, with their delta, one list for each study.
    """

    budget: LifetimeBudget
    groups: dict[str, Cost]
    everybody: Cost
    events: Mapping[str, Sequence[tuple[float, Sequence[PrivacyEvent]]]] = field(default_factory=dict)

    def cost_of(self, cohort: str, people: int) -> Cost:
        """Return what a group's charges cost a patient who is so many of its members."""
        cost = FREE
        for delta, events in self.events.get(cohort, ()):
            cost = plus(cost, self.budget.cost([event.of_group(people) for event in events], delta))
        return cost

    def affords(self, own: Cost, cost: Cost) -> bool:
        """Tell whether a patient who was charged so much for groups may be charged so much more."""
        return self.budget.fits(plus(self.everybody, own), cost)


def accounts_of(entries: Sequence[Entry], budget: LifetimeBudget) -> Accounts:
    """Return the accounts that the ledger's entries make under a budget. Pure but for the accountant's cache."""
    events: defaultdict[tuple[str, str, float], list[PrivacyEvent]] = defaultdict(list)
    everybody = FREE
    for entry in entries:
        if isinstance(entry, LedgerEntry) and entry.event is not None:
            events[entry.cohort_digest, entry.study_digest, entry.delta].append(entry.event)
        if isinstance(entry, GapEntry):
            everybody = plus(everybody, _gap_cost(entry, budget))
    groups: dict[str, Cost] = {}
    for (cohort, _, delta), own in events.items():
        groups[cohort] = plus(groups.get(cohort, FREE), budget.cost(own, delta))
    by_cohort: defaultdict[str, list[tuple[float, list[PrivacyEvent]]]] = defaultdict(list)
    for (cohort, _, delta), own in events.items():
        by_cohort[cohort].append((delta, own))
    return Accounts(budget, groups, everybody, dict(by_cohort))


def recorded_budget(entries: Sequence[Entry]) -> LifetimeBudget | None:
    """Return the lifetime budget that the ledger names last, or None before its first use. Pure."""
    return next((entry.budget for entry in reversed(entries) if isinstance(entry, BudgetEntry)), None)


def keep_group(database: sqlite3.Connection, cohort: str, pseudonyms: Sequence[str]) -> None:
    """Keep a group's members under the digest that the ledger names. Call within a transaction."""
    rows = ((cohort, pseudonym) for pseudonym in pseudonyms)
    database.executemany("INSERT OR IGNORE INTO group_members VALUES (?, ?)", rows)


def verify_groups(database: sqlite3.Connection, entries: Sequence[Entry]) -> int:
    """Check the members of every charged group against the digest in the ledger; return how many groups there are.

    Raises: GateError if a member was added or taken away.
    """
    cohorts = {entry.cohort_digest for entry in entries if isinstance(entry, LedgerEntry)}
    for cohort in cohorts:
        rows = database.execute("SELECT pseudonym FROM group_members WHERE cohort = ?", (cohort,))
        if group_digest([row[0] for row in rows]) != cohort:
            raise GateError(
                "The members of a charged group are not those that the ledger names.",
                "Stop the gate, keep a copy of the database and restore the last backup; tell the hub's operator.",
            )
    return len(cohorts)


def charged_patients(database: sqlite3.Connection, accounts: Accounts) -> Iterator[tuple[str, Cost]]:
    """Yield every pseudonym that was ever charged for a group, with what it cost, gaps aside.

    Each pseudonym of a patient who has several comes with what all of them were charged.
    """
    several = same_patients(database)
    yield from _charged_under_several(database, accounts, set(several.values()))
    rows = database.execute(
        "WITH cost (cohort, first, second) AS MATERIALIZED ("
        "SELECT key, json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)) "
        "SELECT pseudonym, SUM(first), SUM(second) FROM cost JOIN group_members USING (cohort) GROUP BY pseudonym",
        (json.dumps({cohort: list(cost) for cohort, cost in accounts.groups.items()}),),
    )
    for pseudonym, first, second in rows:
        if pseudonym not in several:
            yield pseudonym, (first, second)


def _charged_under_several(
    database: sqlite3.Connection, accounts: Accounts, patients: Collection[tuple[str, ...]]
) -> Iterator[tuple[str, Cost]]:
    for own in sorted(patients):
        rows = database.execute(
            "SELECT cohort, COUNT(*) FROM group_members WHERE pseudonym IN (SELECT value FROM json_each(?)) "
            "GROUP BY cohort",
            (json.dumps(list(own)),),
        ).fetchall()
        charged = [accounts.cost_of(cohort, people) for cohort, people in rows if cohort in accounts.groups]
        if charged:
            cost = functools.reduce(plus, charged)
            yield from ((pseudonym, cost) for pseudonym in own)


def unaffording(database: sqlite3.Connection, accounts: Accounts, cost: Cost) -> list[str]:
    """Return the patients, of those charged before, whose budget does not cover this cost."""
    if cost == FREE:
        return []
    return [who for who, own in charged_patients(database, accounts) if not accounts.affords(own, cost)]


def some_cannot_afford(
    database: sqlite3.Connection, accounts: Accounts, cohort: str, cost_of: Callable[[int], Cost]
) -> bool:
    """Tell whether any member of a group, charged before or not, cannot afford what it costs so many of its members."""
    if not accounts.affords(FREE, cost_of(1)):
        return True
    members = {row[0] for row in database.execute("SELECT pseudonym FROM group_members WHERE cohort = ?", (cohort,))}
    if not members.isdisjoint(unaffording(database, accounts, cost_of(1))):
        return True
    patients = Counter(own for who, own in same_patients(database).items() if who in members)
    several = {own[0]: people for own, people in patients.items() if people > 1}
    if not several:
        return False
    spent = dict.fromkeys(several, FREE) | {who: c for who, c in charged_patients(database, accounts) if who in several}
    return any(not accounts.affords(spent[who], cost_of(people)) for who, people in several.items())


def plus(one: Cost, other: Cost) -> Cost:
    """Return the sum of two costs."""
    return (one[0] + other[0], one[1] + other[1])


def _gap_cost(entry: GapEntry, budget: LifetimeBudget) -> Cost:
    # In one study a patient is trained on or held out, never both: the dearer of the two covers everybody.
    costs = [budget.cost(events, entry.delta) for events in entry.charged.values() if events]
    return max(costs, default=FREE, key=lambda cost: (math.fsum(cost), cost))
