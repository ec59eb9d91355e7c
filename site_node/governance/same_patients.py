"""Pseudonyms that are one patient: what the hospital's merge table joined, as the gate remembers it. Never leaves.

The worker tells with a cohort's members which pseudonyms are one patient's; the gate cannot see which patient that is.
What was once joined stays joined: a row taken out of the merge table gives no budget back, and what each of the
pseudonyms was ever charged is borne by all of them.
"""

import sqlite3
from collections.abc import Iterable, Sequence

from site_node.connected_names import connected

SCHEMA = """
CREATE TABLE IF NOT EXISTS same_patients (
    pseudonym TEXT NOT NULL, other TEXT NOT NULL, PRIMARY KEY (pseudonym, other)) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS same_patients_keep BEFORE UPDATE ON same_patients
    BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER IF NOT EXISTS same_patients_stay BEFORE DELETE ON same_patients
    BEGIN SELECT RAISE(ABORT, 'append only'); END;
"""


def keep_same(database: sqlite3.Connection, merged: Iterable[Sequence[str]]) -> None:
    """Remember that each of these groups of pseudonyms is one patient. Call within a transaction."""
    rows = ((own[0], other) for own in merged for other in own[1:])
    database.executemany("INSERT OR IGNORE INTO same_patients VALUES (?, ?)", rows)


def same_patients(database: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    """Return, for every pseudonym of a patient who has several, all of them, sorted."""
    pairs = database.execute("SELECT pseudonym, other FROM same_patients").fetchall()
    groups = [tuple(sorted(group)) for group in connected((row[0], row[1]) for row in pairs)]
    return {who: group for group in groups for who in group}


def first_pseudonyms(database: sqlite3.Connection) -> dict[str, str]:
    """Return, for every pseudonym of a patient who has several, the one that stands for that patient."""
    return {who: own[0] for who, own in same_patients(database).items()}
