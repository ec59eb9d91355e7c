"""What the label columns of a row say: one class of the study, or several findings.

A class is written as its number (0, 1, ...) or its name. Findings stand either in a column for each, named as the class
is, with 1 or 0 (yes or no, true or false, present or absent), or nothing (na, unknown, -1, u) where it is not known;
or, with `label.separator`, as names in one column, where what is not named is absent, and `none` says that all are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.label import Label
from site_node.cohort.csv_file import class_number, numbered
from site_node.cohort.findings import Findings

PRESENT = frozenset({"1", "1.0", "yes", "true", "present", "positive"})
ABSENT = frozenset({"0", "0.0", "no", "false", "absent", "negative"})
UNKNOWN = frozenset({"", "na", "n/a", "nan", "null", "?", "unknown", "uncertain", "u", "-1", "-1.0"})
NO_FINDING = frozenset({"none", "no finding"})
EMPTY = frozenset({""})


@dataclass(frozen=True)
class Said:
    """What a row says: a class's number; or whether there is any finding, and the findings; or regression's `value`."""

    label: int
    findings: Findings = ()
    value: float | None = None


def columns_of(label: Label) -> tuple[str, ...]:
    """Return the columns that a study's label stands in."""
    return tuple(label.classes) if label.several and label.separator is None else (label.column,)


def is_missing(record: Mapping[str, str], label: Label, words: frozenset[str] = EMPTY) -> bool:
    """Tell whether a row says nothing in the study's label columns; `words` stand for nothing in one of them."""
    empty = UNKNOWN if label.several and label.separator is None else words
    return all(record[column].casefold() in empty for column in columns_of(label))


def said_in(record: Mapping[str, str], label: Label) -> Said | None:
    """Return what a row says, which has a value; None if it is nothing that the study knows."""
    if not label.several:
        number = class_number(record[label.column], numbered(label.classes))
        return None if number is None else Said(number)
    findings = _each_of(record, label) if label.separator is None else _named(record[label.column], label)
    return None if findings is None else Said(int(1 in findings), findings)


def _each_of(record: Mapping[str, str], label: Label) -> Findings | None:
    words = [record[name].casefold() for name in label.classes]
    if any(word not in PRESENT | ABSENT | UNKNOWN for word in words):
        return None
    return tuple(None if word in UNKNOWN else int(word in PRESENT) for word in words)


def _named(written: str, label: Label) -> Findings | None:
    names = {name.strip().casefold() for name in written.split(label.separator)} - {""}
    known = numbered(label.classes)
    if names & NO_FINDING:
        return (0,) * len(known) if names <= NO_FINDING else None
    return tuple(int(name in names) for name in known) if names <= known.keys() else None
