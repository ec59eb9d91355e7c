"""Each patient's account over all studies, recomputed from the ledger's events. Pseudonyms and sums stay in the gate.

A patient is charged for the studies whose groups they are in, and for every gap: nobody knows whom that touched.
What one study costs a patient is composed within the study; over studies the lifetime's filter adds it up.

A patient who has several pseudonyms bears what each of them was charged (`same_patients.py`). Two of them in one group
are two patients' data in each of its mechanisms, which costs more than twice (`PrivacyEvent.of_group`). Of a gap they
bear the dearest way in which all of them may have stood in the lost study's groups.
"""

import functools
import itertools
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from protocol.privacy_events import PrivacyEvent
from protocol.privacy_filter import FREE, Cost, LifetimeBudget
from site_node.cohort_members import group_digest
from site_node.errors import GateError
from site_node.governance.ledger_entries import BudgetEntry, Entry, GapEntry, Group, LedgerEntry
from site_node.governance.same_patients import SCHEMA as SAME_PATIENTS_SCHEMA
from site_node.governance.same_patients import first_pseudonyms, same_patients

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

    `events` are each group's, with their delta, one list for each study. `gaps` are what `everybody` is the sum of.
    """

    budget: LifetimeBudget
    groups: dict[str, Cost]
    everybody: Cost
    events: Mapping[str, Sequence[tuple[float, Sequence[PrivacyEvent]]]] = field(default_factory=dict)
    gaps: Sequence[GapEntry] = ()

    def cost_of(self, cohort: str, people: int) -> Cost:
        """Return what a group's charges cost a patient who is so many of its members."""
        cost = FREE
        for delta, events in self.events.get(cohort, ()):
            cost = plus(cost, self.budget.cost([event.of_group(people) for event in events], delta))
        return cost

    def gaps_beside(self, people: int) -> Cost:
        """Return what the gaps cost a patient of so many pseudonyms more than everybody."""
        borne = functools.reduce(plus, (_gap_cost(gap, self.budget, people) for gap in self.gaps), FREE)
        return (borne[0] - self.everybody[0], borne[1] - self.everybody[1])

    def affords(self, own: Cost, cost: Cost) -> bool:
        """Tell whether a patient who was charged so much beside everybody may be charged so much more."""
        return self.budget.fits(plus(self.everybody, own), cost)


def accounts_of(entries: Sequence[Entry], budget: LifetimeBudget) -> Accounts:
    """Return the accounts that the ledger's entries make under a budget. Pure but for the accountant's cache."""
    events: defaultdict[tuple[str, str, float], list[PrivacyEvent]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry, LedgerEntry) and entry.event is not None:
            events[entry.cohort_digest, entry.study_digest, entry.delta].append(entry.event)
    gaps = [entry for entry in entries if isinstance(entry, GapEntry)]
    everybody = functools.reduce(plus, (_gap_cost(gap, budget, 1) for gap in gaps), FREE)
    groups: dict[str, Cost] = {}
    for (cohort, _, delta), own in events.items():
        groups[cohort] = plus(groups.get(cohort, FREE), budget.cost(own, delta))
    by_cohort: defaultdict[str, list[tuple[float, list[PrivacyEvent]]]] = defaultdict(list)
    for (cohort, _, delta), own in events.items():
        by_cohort[cohort].append((delta, own))
    return Accounts(budget, groups, everybody, dict(by_cohort), gaps)


def recorded_budget(entries: Sequence[Entry]) -> LifetimeBudget | None:
    """Return the lifetime budget that the ledger names last, or None before its first use. Pure."""
    return next((entry.budget for entry in reversed(entries) if isinstance(entry, BudgetEntry)), None)


def keep_group(database: sqlite3.Connection, pseudonyms: Sequence[str]) -> str:
    """Keep a group's members and return the digest by which the ledger names it. Call within a transaction."""
    cohort = group_digest(list(pseudonyms))
    rows = ((cohort, pseudonym) for pseudonym in pseudonyms)
    database.executemany("INSERT OR IGNORE INTO group_members VALUES (?, ?)", rows)
    return cohort


def members_of(database: sqlite3.Connection, cohort: str) -> set[str]:
    """Return a kept group's members."""
    return {row[0] for row in database.execute("SELECT pseudonym FROM group_members WHERE cohort = ?", (cohort,))}


def group_size(database: sqlite3.Connection, cohort: str | None) -> int:
    """Return how many members a kept group has; 0 of none."""
    row = database.execute("SELECT count(*) FROM group_members WHERE cohort = ?", (cohort,)).fetchone()
    return int(row[0])


def verify_groups(database: sqlite3.Connection, entries: Sequence[Entry]) -> int:
    """Check the members of every charged group against the digest in the ledger; return how many groups there are.

    Raises: GateError if a member was added or taken away.
    """
    cohorts = {entry.cohort_digest for entry in entries if isinstance(entry, LedgerEntry)}
    for cohort in cohorts:
        if group_digest(list(members_of(database, cohort))) != cohort:
            raise GateError(
                "The members of a charged group are not those that the ledger names.",
                "Stop the gate, keep a copy of the database and restore the last backup; tell the hub's operator.",
            )
    return len(cohorts)


def charged_patients(database: sqlite3.Connection, accounts: Accounts) -> Iterator[tuple[str, Cost]]:
    """Yield every pseudonym that was ever charged for a group, with what it cost beside what everybody bears.

    Each pseudonym of a patient who has several comes with what all of them were charged, and with what a gap may have
    cost that patient more than others.
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
    beside = {people: accounts.gaps_beside(people) for people in set(map(len, patients))}
    for own in sorted(patients):
        rows = database.execute(
            "SELECT cohort, COUNT(*) FROM group_members WHERE pseudonym IN (SELECT value FROM json_each(?)) "
            "GROUP BY cohort",
            (json.dumps(list(own)),),
        ).fetchall()
        charged = [accounts.cost_of(cohort, people) for cohort, people in rows if cohort in accounts.groups]
        cost = functools.reduce(plus, charged, beside[len(own)])
        if charged or cost != FREE:
            yield from ((pseudonym, cost) for pseudonym in own)


def unaffording(database: sqlite3.Connection, accounts: Accounts, cost: Cost) -> list[str]:
    """Return the patients, of those charged before, whose budget does not cover this cost."""
    if cost == FREE:
        return []
    return [who for who, own in charged_patients(database, accounts) if not accounts.affords(own, cost)]


def some_cannot_afford(
    database: sqlite3.Connection, accounts: Accounts, asked: Sequence[tuple[str, Callable[[int], Cost]]]
) -> bool:
    """Tell whether any patient, charged before or not, cannot afford all the groups that they are in together.

    `asked` are groups, each with what it costs a patient who is so many of its members.
    """
    first = first_pseudonyms(database)
    placed: dict[str, Counter[int]] = {}  # of each patient: how many of each group's members they are
    for number, (cohort, _) in enumerate(asked):
        for who in members_of(database, cohort):
            placed.setdefault(first.get(who, who), Counter())[number] += 1
    spent = {who: own for who, own in charged_patients(database, accounts) if who in placed}

    @functools.cache
    def cost_of(places: frozenset[tuple[int, int]]) -> Cost:
        return functools.reduce(plus, (asked[number][1](people) for number, people in sorted(places)), FREE)

    return any(
        not accounts.affords(spent.get(who, FREE), cost_of(frozenset(places.items()))) for who, places in placed.items()
    )


def plus(one: Cost, other: Cost) -> Cost:
    """Return the sum of two costs."""
    return (one[0] + other[0], one[1] + other[1])


def placings(people: int) -> list[dict[Group, int]]:
    """Return how a patient of so many pseudonyms may be divided among a study's groups. Pure."""
    return [{"training": trained, "held-out": people - trained} for trained in range(people + 1)]


def _gap_cost(entry: GapEntry, budget: LifetimeBudget, people: int) -> Cost:
    # A pseudonym is trained on or held out, never both. Which it was is lost: the dearest placing covers everybody.
    def cost_of(group: Group, members: int) -> Cost:
        events = entry.charged.get(group, []) if members else []
        return budget.cost([event.of_group(members) for event in events], entry.delta)

    costs = [functools.reduce(plus, itertools.starmap(cost_of, one.items())) for one in placings(people)]
    return max(first for first, _ in costs), max(second for _, second in costs)
