"""What became of each attribute: by keyword and count, never by value. The quality control of a de-identified copy.

>>> report.survivors()      # doctest: +SKIP
[('Manufacturer', 'kept: free text that the standard does not list', 3)]
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pydicom.datadict import keyword_for_tag


class Fate(StrEnum):
    """What happened to one attribute, and why."""

    REMOVED = "removed: Table E.1-1"
    REMOVED_PRIVATE = "removed: private"
    REMOVED_GRAPHICS = "removed: curve or overlay"
    REMOVED_UNKNOWN = "removed: no attribute that is known"
    REMOVED_BEYOND = "removed: not in Table E.1-1, and may name a person, a date or an address"
    UNREADABLE = "removed: its value cannot be read"
    EMPTIED = "emptied: Table E.1-1"
    REPEATED = "emptied: it repeated a name or number of the patient"
    DUMMY = "replaced by a dummy: Table E.1-1"
    CODE = "replaced by the patient's code"
    NEW_UID = "replaced by a keyed UID"
    MOVED = "kept: date moved back by a number of days"
    TIME = "kept: time of day, beside a moved date"
    CLEANED = "kept: reduced to safe words"
    CAPPED = "kept: age, over 89 as 90"
    OPTION = "kept: by an option that the policy chose"
    SAFE_PRIVATE = "kept: private, on the policy's list"
    FREE_TEXT = "kept: free text that the standard does not list"
    KEPT = "kept: the standard does not list it"


WARNED_OF = (Fate.FREE_TEXT, Fate.SAFE_PRIVATE, Fate.CLEANED, Fate.OPTION, Fate.TIME)


@dataclass
class Report:
    """Counts of attributes by keyword and fate, of one file or of many."""

    counts: Counter[tuple[str, Fate]] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def note(self, tag: int, fate: Fate) -> None:
        """Count one attribute; one without a keyword goes by its tag, a private one by its group alone."""
        name = keyword_for_tag(tag)
        if not name:
            name = f"private, group {tag >> 16:04x}" if tag >> 16 & 1 else f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
        self.counts[name, fate] += 1

    def remark(self, sentence: str) -> None:
        """Count a sentence on the file as a whole."""
        self.notes[sentence] += 1

    def add(self, other: "Report") -> None:
        """Add another report's counts."""
        self.counts.update(other.counts)
        self.notes.update(other.notes)

    def survivors(self) -> list[tuple[str, str, int]]:
        """Return what is still there of the original: keyword, why, and how often; what is warned of comes first."""
        kept = [(name, fate, n) for (name, fate), n in self.counts.items() if fate.startswith("kept")]
        return [
            (name, str(fate), n) for name, fate, n in sorted(kept, key=lambda k: (k[1] not in WARNED_OF, k[1], k[0]))
        ]

    def warnings(self) -> list[str]:
        """Return what a person should look at before the copies leave."""
        return [f"{name} x {n}: {fate}" for name, fate, n in self.survivors() if Fate(fate) in WARNED_OF]

    def as_json(self) -> dict[str, object]:
        """Return the report as JSON: keywords, fates and counts."""
        return {
            "attributes": [[name, str(fate), n] for (name, fate), n in sorted(self.counts.items())],
            "notes": dict(sorted(self.notes.items())),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> "Report":
        """Return the report that `as_json` wrote."""
        attributes, notes = document["attributes"], document["notes"]
        if not isinstance(attributes, Iterable) or not isinstance(notes, Mapping):
            raise ValueError("not a report of a de-identification")
        return cls(Counter({(name, Fate(fate)): n for name, fate, n in attributes}), Counter(notes))
