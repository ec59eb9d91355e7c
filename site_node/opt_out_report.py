"""What a patient who has opted out had been used for: studies, rounds and versions. For this site's own eyes alone.

The ledger names the patients of every group that a study was charged for, by pseudonym, and is never emptied; so what
an opted-out patient had part in is found whenever it is asked, also of studies that have ended. Which of a round's
steps drew whom is kept nowhere: `used` says that a patient was there to be drawn, or was judged on.
"""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from protocol.messages import RoundTask, TaskKind, expect
from site_node.cohort_members import ledger_pseudonym
from site_node.governance.ledger_entries import Group, ledger_entries
from site_node.governance.patient_accounts import members_of
from site_node.governance.records import study_record
from site_node.governance.same_patients import same_patients
from site_node.opt_outs import OptOut

SMALLEST_SHOWN = 10
KIND_OF: dict[Group, TaskKind] = {"training": TaskKind.TRAIN, "held-out": TaskKind.EVALUATE}
LATER = (
    "Versions of these rounds, and all that follow from them, were made with such a patient's images; what the study's "
    "noise lets them tell of a patient is what `wardround site budget` says. They are not made again."
)


@dataclass(frozen=True)
class Use:
    """One study in which a patient was used: in which rounds' answers, and the versions that those began from."""

    study_digest: str
    name: str
    group: Group
    rounds: tuple[int, ...]
    versions: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the use as plain data."""
        return {
            **{"study_digest": self.study_digest, "name": self.name, "group": self.group},
            **{"rounds": list(self.rounds), "versions": list(self.versions)},
        }

    def __str__(self) -> str:
        rounds = ", ".join(map(str, self.rounds)) or "none yet"
        from_versions = f", from versions {', '.join(map(str, self.versions))}" if self.versions else ""
        word = "trained on" if self.group == "training" else "judged on"
        return f"study {self.name} {self.study_digest[:19]}: {word}, rounds {rounds}{from_versions}"


def uses_of(database: sqlite3.Connection, opted_out: Iterable[OptOut], key: bytes) -> list[Use]:
    """Return what patients had been used for before they opted out, one entry for each study and group.

    A task that came before a patient opted out may have used them; one that came after has not.
    """
    since = _since(database, opted_out, key)
    found: dict[tuple[str, Group], set[tuple[int, int | None]]] = {}
    for study, group, cohort in dict.fromkeys(_charged(database)):
        members = since.keys() & members_of(database, cohort)
        if members:
            latest = max(since[who] for who in members)
            found.setdefault((study, group), set()).update(_answered(database, study, group, latest))
    return [_use(database, study, group, answered) for (study, group), answered in found.items()]


def sentences_of(opted_out: Sequence[OptOut], uses: Sequence[Use]) -> list[str]:
    """Return the report as lines for a terminal."""
    least = coarse(len(opted_out))
    number = f"{least} or more" if least else "fewer than 10" if opted_out else "no"
    lines = [f"Opted out, by the record and the hospital's list: {number} patients."]
    if uses:
        lines += ["At least one of them had been used before:", *(f"  {use}" for use in uses), LATER]
    elif opted_out:
        lines.append("None of them had been used by any study that this site was charged for.")
    return lines


def coarse(number: int) -> int | None:
    """Return a number of patients rounded down to tens; None for fewer than ten, which is not told."""
    return number // SMALLEST_SHOWN * SMALLEST_SHOWN or None


def _since(database: sqlite3.Connection, opted_out: Iterable[OptOut], key: bytes) -> dict[str, float]:
    several = same_patients(database)
    since: dict[str, float] = {}
    for entry in opted_out:
        moment = float("inf") if entry.since is None else entry.since
        for own in (ledger_pseudonym(one, key) for one in entry.ids):
            since |= {who: max(moment, since.get(who, moment)) for who in several.get(own, (own,))}
    return since


def _charged(database: sqlite3.Connection) -> list[tuple[str, Group, str]]:
    return [(entry.study_digest, entry.patients, entry.cohort_digest) for entry in ledger_entries(database)]


def _answered(
    database: sqlite3.Connection, study: str, group: Group, before: float
) -> Iterable[tuple[int, int | None]]:
    rows = database.execute(
        "SELECT message FROM tasks WHERE study = ? AND kind = ? AND state = 'answered' AND reason IS NULL "
        "AND received_at < ?",
        (study, KIND_OF[group], before),
    )
    for row in rows:
        task = expect(row["message"], RoundTask)
        yield task.round, None if task.base is None else task.base.number


def _use(database: sqlite3.Connection, study: str, group: Group, answered: Collection[tuple[int, int | None]]) -> Use:
    record = study_record(database, study)
    versions = {version for _, version in answered if version is not None}
    name = "(lost)" if record is None else record.study.name
    return Use(study, name, group, tuple(sorted({turn for turn, _ in answered})), tuple(sorted(versions)))
