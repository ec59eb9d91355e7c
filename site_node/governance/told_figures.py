"""Which patients each exact figure counted that this hospital has told, and how small a group figures tell apart.

An approval tells how many training patients match a study, un-noised unless the study says otherwise
(`privacy.count_epsilon`: charged instead), and the researcher writes the criteria: two studies that differ by one
patient would tell whether that patient has the second class, or is 80 years old. An un-noised evaluation tells as
exactly how many patients are held out, and that nobody trains tells of those who match.
A person who approves a study sees its figures. Where the policy approves, nobody does; so it may only where all figures
told so far, with the new ones, still tell no group of fewer patients than the policy's minimum apart.

Any sum or difference of the figures is made of the sizes of the *groups* into which the counted sets divide the
patients. A group that is small already was made known by figures that a person approved, and holds nothing up again.
Patients are told apart twice: as the merge table joins them now, because figures count people, whatever they are called
today; and by the pseudonyms that were counted, because a merge known later makes small groups that no figure told.
Source: the minimum cell size and the tracker attack on counts, Denning et al. 1979, doi:10.1145/320064.320069.

    >>> smallest_new_group([{"a", "b", "c"}], {"a", "b"})
    1
"""

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

from protocol.study import StudySpec
from site_node.cohort_members import CohortMembers
from site_node.governance.patient_accounts import keep_group, members_of
from site_node.governance.same_patients import first_pseudonyms

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
    matching = keep_group(database, members.matching)
    if not training:
        _keep_other(database, study.digest, NOBODY_TRAINS, matching)
    elif study.privacy.count_epsilon is None:  # else noised and charged: it tells no exact number
        database.execute("INSERT INTO figures (study, cohort) VALUES (?, ?)", (study.digest, matching))
    if study.evaluation.noise_epsilon is not None:
        return  # noised and charged: they tell no exact number
    for split in sorted(set(study.evaluation.splits)):
        judged = members.held_out_in(split)
        if judged:
            _keep_other(database, study.digest, split, keep_group(database, judged))


def note_told(database: sqlite3.Connection, study_digest: str) -> None:
    """Remember that a study's figures leave. Call within the approval's transaction."""
    for table in ("figures", "other_figures"):
        database.execute(f"UPDATE {table} SET told = 1 WHERE study = ?", (study_digest,))  # noqa: S608 - our names


def fewest_judged(database: sqlite3.Connection, study_digest: str) -> int | None:
    """Return how many patients the smaller split has of those judged un-noised; None if nobody is."""
    judged = _under(first_pseudonyms(database), list(_others(database, study_digest).values()))
    return min(map(len, judged), default=None)


def tells_a_small_group(database: sqlite3.Connection, study_digest: str, minimum: int, held_out_minimum: int) -> bool:
    """Tell whether a study's figures would tell a group of fewer training patients than the minimum apart.

    Groups that the held-out figures help to tell apart may be as small as the smaller of the two minima.
    """
    counted = _Figures(
        own=_training(database, "study = ?", study_digest),
        judged=list(_others(database, study_digest).values()),
        matching=_nobody_trains(database, "study = ?", study_digest),
        told=_training(database, "told = 1 AND study != ?", study_digest),
        told_judged=[
            members for of in _told_studies(database, study_digest) for members in _others(database, of).values()
        ],
        silent=_nobody_trains(database, "told = 1 AND study != ?", study_digest),
    )
    views = (counted, counted.under(first_pseudonyms(database)))
    return any(figures.tell_a_small_group(minimum, held_out_minimum) for figures in views)


def smallest_new_group(told: Sequence[Collection[str]], *counted: Collection[str]) -> int | None:
    """Return the size of the smallest group that new counted sets tell apart and the told ones do not. Pure.

    Guarantee: None, if there is no new group: then the sets, or the same groups, are known already.
    """
    before, after = _groups(told), _groups([*told, *counted])
    return min((len(group) for group in after - before), default=None)


@dataclass(frozen=True)
class _Figures:
    """Whom a study's figures count (`own`, `judged`, `matching` if nobody trains), and whom those told before did."""

    own: Sets
    judged: Sets
    matching: Sets
    told: Sets
    told_judged: Sets
    silent: Sets

    def under(self, names: Mapping[str, str]) -> "_Figures":
        """Return the same figures with some patients under other names."""
        return _Figures(**{part.name: _under(names, getattr(self, part.name)) for part in fields(self)})

    def tell_a_small_group(self, minimum: int, held_out_minimum: int) -> bool:
        """Tell whether these figures tell a new group of fewer patients apart. Pure."""
        if _is_small([self.told, [*self.told, *self.silent]], self.own, minimum):
            return True
        least = min(minimum, held_out_minimum)
        if _is_small([[*self.told, *self.told_judged]], [*self.own, *self.judged], least):
            return True
        if any(not members for members in self.matching):
            return minimum > 1  # that nobody at all matches tells as much as that one does
        return _is_small([[*self.told, *self.silent]], self.matching, minimum)


def _under(names: Mapping[str, str], sets: Sets) -> Sets:
    return [{names.get(who, who) for who in members} for members in sets]


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
