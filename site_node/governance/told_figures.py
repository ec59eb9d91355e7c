"""Which patients each exact figure counted that this hospital has told, and how small a group figures tell apart.

An approval tells how many training patients match a study, un-noised, and the researcher writes the criteria: two
studies that differ by one patient would tell whether that patient has the second class, or is 80 years old. A person
who approves a study sees its figure. Where the policy approves, nobody does; so it may only where all figures told
so far, with the new one, still tell no group of fewer patients than the policy's minimum apart.

Any sum or difference of the figures is made of the sizes of the *groups* into which the counted sets divide the
patients. A group that is small already was made known by figures that a person approved, and holds nothing up again.
Source: the minimum cell size and the tracker attack on counts, Denning et al. 1979, doi:10.1145/320064.320069.

    >>> smallest_new_group([{"a", "b", "c"}], {"a", "b"})
    1
"""

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Sequence

from site_node.cohort_members import CohortMembers, group_digest
from site_node.governance.patient_accounts import keep_group

SCHEMA = """
CREATE TABLE IF NOT EXISTS figures (study TEXT PRIMARY KEY, cohort TEXT NOT NULL, told INTEGER NOT NULL DEFAULT 0);
"""
WAITS_FOR_A_PERSON = (
    "Its exact number of training patients, with the numbers told before, would tell a group of fewer than {} patients "
    "apart (`minimum_patients`). A person has to decide: approve it with `wardround site approve`, or refuse it."
)


def keep_counted(database: sqlite3.Connection, study_digest: str, members: CohortMembers | None) -> None:
    """Keep whom a study's figure counts, left out or not, in place of an earlier count. Call within a transaction."""
    database.execute("DELETE FROM figures WHERE study = ?", (study_digest,))
    if members is None:
        return
    counted = [*members.training, *members.spent_training]
    cohort = group_digest(counted)
    keep_group(database, cohort, counted)
    database.execute("INSERT INTO figures (study, cohort) VALUES (?, ?)", (study_digest, cohort))


def note_told(database: sqlite3.Connection, study_digest: str) -> None:
    """Remember that a study's figure leaves. Call within the approval's transaction."""
    database.execute("UPDATE figures SET told = 1 WHERE study = ?", (study_digest,))


def needs_a_person(database: sqlite3.Connection, study_digest: str, minimum: int) -> bool:
    """Tell whether a study's figure would tell a group of fewer patients than the minimum apart."""
    own = database.execute("SELECT cohort FROM figures WHERE study = ?", (study_digest,)).fetchone()
    if own is None:
        return False  # nobody trains here, and 0 is told
    told = [row[0] for row in database.execute("SELECT DISTINCT cohort FROM figures WHERE told = 1")]
    if own[0] in told:
        return False
    smallest = smallest_new_group([_members(database, cohort) for cohort in told], _members(database, own[0]))
    return smallest is not None and smallest < minimum


def smallest_new_group(told: Sequence[Collection[str]], counted: Collection[str]) -> int | None:
    """Return the size of the smallest group that a new counted set tells apart and the told ones do not. Pure.

    Guarantee: None, if there is no new group: then the set, or one of the same groups, is known already.
    """
    before, after = _groups(told), _groups([*told, counted])
    return min((len(group) for group in after - before), default=None)


def _groups(sets: Sequence[Collection[str]]) -> set[frozenset[str]]:
    """Return the groups into which sets divide the patients: those of one group are in the same sets."""
    within: defaultdict[str, list[int]] = defaultdict(list)
    for number, members in enumerate(sets):
        for who in members:
            within[who].append(number)
    groups: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for who, numbers in within.items():
        groups[tuple(numbers)].append(who)
    return {frozenset(group) for group in groups.values()}


def _members(database: sqlite3.Connection, cohort: str) -> set[str]:
    return {row[0] for row in database.execute("SELECT pseudonym FROM group_members WHERE cohort = ?", (cohort,))}
