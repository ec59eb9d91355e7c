"""Which patients each exact figure counted that this hospital has told, and how small a group figures tell apart.

An approval tells how many training patients match a study, un-noised unless the study says otherwise
(`privacy.count_epsilon`: charged instead), and the researcher writes the criteria: two studies that differ by one
patient would tell whether that patient has the second class, or is 80 years old. An un-noised evaluation tells as
exactly how many patients are held out, and that nobody trains tells of those who match.
A person who approves a study sees its figures. Where the policy approves, nobody does; so it may only where all figures
told so far, with the new ones, still tell no group of fewer patients than the policy's minimum apart.

Any sum or difference of the figures is made of the sizes of the *groups* into which the counted sets divide the
patients. A group that is small already was made known by figures that a person approved, and holds nothing up again.
Source: the minimum cell size and the tracker attack on counts, Denning et al. 1979, doi:10.1145/320064.320069.

    >>> smallest_new_group([{"a", "b", "c"}], {"a", "b"})
    1
"""

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Sequence

from protocol.study import StudySpec
from site_node.cohort_members import CohortMembers, group_digest
from site_node.governance.patient_accounts import keep_group

SCHEMA = """
CREATE TABLE IF NOT EXISTS figures (study TEXT PRIMARY KEY, cohort TEXT NOT NULL, told INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS other_figures (
    study TEXT NOT NULL, part TEXT NOT NULL, cohort TEXT NOT NULL, told INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (study, part));
"""
NOBODY_TRAINS = "nobody-trains"  # of `other_figures`: those who match, and 0 is told; the other parts are splits
Sets = list[set[str]]


def keep_counted(database: sqlite3.Connection, study: StudySpec, members: CohortMembers, training: int) -> None:
    """Keep whom a study's figures count, left out or not, in place of an earlier count. Call within a transaction.

    `training` is the number of training patients that would be told, 0 where those who match do not train.
    """
    database.execute("DELETE FROM figures WHERE study = ?", (study.digest,))
    database.execute("DELETE FROM other_figures WHERE study = ?", (study.digest,))
    matching = _kept(database, members.matching)
    if not training:
        _keep_other(database, study.digest, NOBODY_TRAINS, matching)
    elif study.privacy.count_epsilon is None:  # else noised and charged: it tells no exact number
        database.execute("INSERT INTO figures (study, cohort) VALUES (?, ?)", (study.digest, matching))
    if study.evaluation.noise_epsilon is not None:
        return  # noised and charged: they tell no exact number
    for split in sorted(set(study.evaluation.splits)):
        judged = members.held_out_in(split)
        if judged:
            _keep_other(database, study.digest, split, _kept(database, judged))


def note_told(database: sqlite3.Connection, study_digest: str) -> None:
    """Remember that a study's figures leave. Call within the approval's transaction."""
    for table in ("figures", "other_figures"):
        database.execute(f"UPDATE {table} SET told = 1 WHERE study = ?", (study_digest,))  # noqa: S608 - our names


def fewest_judged(database: sqlite3.Connection, study_digest: str) -> int | None:
    """Return how many patients the smaller split has of those judged un-noised; None if nobody is."""
    return min(map(len, _others(database, study_digest).values()), default=None)


def tells_a_small_group(database: sqlite3.Connection, study_digest: str, minimum: int, held_out_minimum: int) -> bool:
    """Tell whether a study's figures would tell a group of fewer training patients than the minimum apart.

    Groups that the held-out figures help to tell apart may be as small as the smaller of the two minima.
    """
    own = _training(database, "study = ?", study_digest)
    told = _training(database, "told = 1 AND study != ?", study_digest)
    silent = _nobody_trains(database, "told = 1 AND study != ?", study_digest)
    if _is_small([told, [*told, *silent]], own, minimum):
        return True
    judged = list(_others(database, study_digest).values())
    told_judged = [
        members for of in _told_studies(database, study_digest) for members in _others(database, of).values()
    ]
    if _is_small([[*told, *told_judged]], [*own, *judged], min(minimum, held_out_minimum)):
        return True
    matching = _nobody_trains(database, "study = ?", study_digest)
    if any(not members for members in matching):
        return minimum > 1  # that nobody at all matches tells as much as that one does
    return _is_small([[*told, *silent]], matching, minimum)


def smallest_new_group(told: Sequence[Collection[str]], *counted: Collection[str]) -> int | None:
    """Return the size of the smallest group that new counted sets tell apart and the told ones do not. Pure.

    Guarantee: None, if there is no new group: then the sets, or the same groups, are known already.
    """
    before, after = _groups(told), _groups([*told, *counted])
    return min((len(group) for group in after - before), default=None)


def members_of(database: sqlite3.Connection, cohort: str) -> set[str]:
    """Return a kept group's members."""
    return {row[0] for row in database.execute("SELECT pseudonym FROM group_members WHERE cohort = ?", (cohort,))}


def _is_small(told_in_turn: Sequence[Sequence[set[str]]], counted: Sequence[set[str]], least: int) -> bool:
    if not counted or least <= 1:
        return False
    found = [smallest_new_group(told, *counted) for told in told_in_turn]
    return any(smallest is not None and smallest < least for smallest in found)


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


def _kept(database: sqlite3.Connection, pseudonyms: list[str]) -> str:
    cohort = group_digest(pseudonyms)
    keep_group(database, cohort, pseudonyms)
    return cohort


def _keep_other(database: sqlite3.Connection, study_digest: str, part: str, cohort: str) -> None:
    database.execute("INSERT INTO other_figures (study, part, cohort) VALUES (?, ?, ?)", (study_digest, part, cohort))


def _training(database: sqlite3.Connection, where: str, study_digest: str) -> Sets:
    rows = database.execute(f"SELECT DISTINCT cohort FROM figures WHERE {where}", (study_digest,))  # noqa: S608 - ours
    return [members_of(database, row[0]) for row in rows.fetchall()]


def _nobody_trains(database: sqlite3.Connection, where: str, study_digest: str) -> Sets:
    rows = database.execute(
        f"SELECT DISTINCT cohort FROM other_figures WHERE part = ? AND {where}",  # noqa: S608 - ours
        (NOBODY_TRAINS, study_digest),
    )
    return [members_of(database, row[0]) for row in rows.fetchall()]


def _told_studies(database: sqlite3.Connection, but: str) -> list[str]:
    rows = database.execute("SELECT DISTINCT study FROM other_figures WHERE told = 1 AND study != ?", (but,))
    return [row[0] for row in rows.fetchall()]


def _others(database: sqlite3.Connection, study_digest: str) -> dict[str, set[str]]:
    rows = database.execute(
        "SELECT part, cohort FROM other_figures WHERE study = ? AND part != ?", (study_digest, NOBODY_TRAINS)
    )
    return {row[0]: members_of(database, row[1]) for row in rows.fetchall()}
