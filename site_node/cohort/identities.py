"""Who is one patient, and who takes no part: the hospital's merge table and its opt-outs, before every cohort.

A merge table is a CSV with the columns `old_id` and `new_id`, and optionally `kind`: `joined` (both ids were in use for
one person; the default) or `renamed` (the new id is a new pseudonym, which nobody had before). Ids that rows connect,
over however many rows, are one patient: whoever may be one person is one, which charges the privacy ledger no less than
it should. The one id is that to which all rows lead; where rows lead in a circle, or to several, it is the first of
these in order, and the site is told how many such there are.

A list of opt-outs is a CSV with the column `patient_id`. Who opts out under one id has done so under all of them.
Nothing here leaves the hospital, and what is told names no id.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from site_node.cohort.csv_file import PATIENT_COLUMN, read_records
from site_node.cohort.labels import Labels
from site_node.connected_names import connected

OLD_COLUMN, NEW_COLUMN, KIND_COLUMN = "old_id", "new_id", "kind"
JOINED, RENAMED = "joined", "renamed"
IF_NO_MERGES = "Put the merge table there, or name another in site.yaml (merged_patients)."
IF_NO_OPT_OUTS = "Put the list of opt-outs there, or name another in site.yaml (excluded_patients)."

LACKS_AN_ID = "row: it lacks one of the two ids"
ONE_ID_TWICE = "row: it names one id twice"
FOREIGN_KIND = "row: its kind is neither joined nor renamed; it counts as joined"
CIRCLE = "patient: the rows lead in a circle"
SEVERAL_NEW = "patient: the rows lead to several new ids"
LACKS_A_PATIENT = "row: it lacks a patient id"


@dataclass(frozen=True)
class MergeRow:
    """One usable row of the merge table."""

    old: str
    new: str
    renamed: bool = False


@dataclass(frozen=True)
class Identities:
    """A site's patients under their one id; by default nobody is merged and nobody has opted out.

    `one_id` names the one id of every id of the table; `opted_out` are ids as the hospital wrote them; `faults` counts
    what was wrong with the two files, by reason.
    """

    one_id: Mapping[str, str] = field(default_factory=dict)
    renamed: frozenset[str] = frozenset()
    opted_out: frozenset[str] = frozenset()
    faults: Mapping[str, int] = field(default_factory=dict)

    def one(self, patient_id: str) -> str:
        """Return the one id of a patient."""
        return self.one_id.get(patient_id, patient_id)

    def takes_part(self, patient_id: str) -> bool:
        """Tell whether a patient has not opted out, under whichever id."""
        return self.one(patient_id) not in self._excluded

    def known_as(self, patient_id: str) -> tuple[str, ...]:
        """Return every id of a patient, sorted; of most the only one."""
        return self._ids.get(self.one(patient_id), (patient_id,))

    def dealt_as(self, patient_id: str) -> tuple[str, ...]:
        """Return the ids under which earlier studies may have dealt a patient to a split: those not newly made."""
        ids = self.known_as(patient_id)
        return tuple(one for one in ids if one not in self.renamed) or ids

    @property
    def merged(self) -> tuple[tuple[str, ...], ...]:
        """Return the ids of each patient who has several."""
        return tuple(self._ids.values())

    def without(self, opted_out: Iterable[str]) -> "Identities":
        """Return the same with further patients opted out."""
        return replace(self, opted_out=self.opted_out | frozenset(opted_out))

    def of_labels(self, labels: Labels) -> Labels:
        """Return labels.csv with every patient under their one id, and without those who opted out."""
        rows = {
            name: replace(row, patient_id=self.one(row.patient_id))
            for name, row in labels.rows.items()
            if self.takes_part(row.patient_id)
        }
        return replace(labels, rows=rows)

    @cached_property
    def _excluded(self) -> frozenset[str]:
        return frozenset(map(self.one, self.opted_out))

    @cached_property
    def _ids(self) -> Mapping[str, tuple[str, ...]]:
        ids: defaultdict[str, list[str]] = defaultdict(list)
        for one, name in sorted(self.one_id.items()):
            ids[name].append(one)
        return {name: tuple(own) for name, own in ids.items()}


AS_THEY_ARE = Identities()


def read_identities(merges: Path | None, opt_outs: Path | None) -> Identities:
    """Read the merge table and the list of opt-outs; without either, everybody is who they are.

    Raises: LabelsError if a file is missing, is no such table, or lacks a column. Faulty rows fall out, counted.
    """
    faults: Counter[str] = Counter()
    identities = identities_of(_merge_rows(merges, faults), faults)
    return replace(identities, opted_out=frozenset(_opt_outs(opt_outs, faults)), faults=dict(faults))


def identities_of(rows: Iterable[MergeRow], faults: Counter[str] | None = None) -> Identities:
    """Return who is one patient by these rows, whatever their order. Pure.

    Guarantee: two ids have one patient exactly if rows connect them; the one id is one of them.
    """
    counted: Counter[str] = Counter() if faults is None else faults
    rows = tuple(dict.fromkeys(rows))
    followed = {row.old for row in rows}
    one_id: dict[str, str] = {}
    for ids in connected((row.old, row.new) for row in rows):
        ends = sorted(ids - followed)
        if len(ends) != 1:
            counted[SEVERAL_NEW if ends else CIRCLE] += 1
        one_id |= dict.fromkeys(ids, (ends or sorted(ids))[0])
    joined = {row.new for row in rows if not row.renamed}
    return Identities(one_id, frozenset(row.new for row in rows if row.renamed) - joined)


def _merge_rows(path: Path | None, faults: Counter[str]) -> Iterator[MergeRow]:
    if path is None:
        return
    for record in read_records(path, (OLD_COLUMN, NEW_COLUMN), IF_NO_MERGES):
        old, new, kind = record[OLD_COLUMN], record[NEW_COLUMN], record.get(KIND_COLUMN, "").casefold()
        if not old or not new:
            faults[LACKS_AN_ID] += 1
        elif old == new:
            faults[ONE_ID_TWICE] += 1
        else:
            faults[FOREIGN_KIND] += kind not in ("", JOINED, RENAMED)
            yield MergeRow(old, new, kind == RENAMED)


def _opt_outs(path: Path | None, faults: Counter[str]) -> Iterator[str]:
    if path is None:
        return
    for record in read_records(path, (PATIENT_COLUMN,), IF_NO_OPT_OUTS):
        if record[PATIENT_COLUMN]:
            yield record[PATIENT_COLUMN]
        else:
            faults[LACKS_A_PATIENT] += 1
