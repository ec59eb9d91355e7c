"""What a cohort's patients say about the quality of its data: three counts, of training patients. Pure.

    positive     the patient's label is the second class: how evenly the labels are spread
    unreadable   at least one image that labels.csv names is damaged or not there (of a table: a row cannot be used)
    repeated     at least one image lies there in several files (a row stands there twice)

Only patients who are in the training cohort count, because they are who the privacy ledger is charged for. So one of
whom nothing can be read counts in none; and whether something holds of a patient is found in their own files and rows
alone, so that no patient moves a count by what another's files are.
"""

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass
class Noticed:
    """Patients, by key, in whose files or rows something was noticed while a cohort was put together. Never leaves."""

    unreadable: set[str] = field(default_factory=set)
    repeated: set[str] = field(default_factory=set)
    _seen: set[tuple[str, str]] = field(default_factory=set, repr=False)

    def has_seen(self, patient: str, name: str) -> bool:
        """Tell whether an image or row of this patient was noted."""
        return (patient, name) in self._seen

    def see(self, patient: str, name: str) -> None:
        """Note an image or row of a patient; the second of a name is a repetition."""
        if self.has_seen(patient, name):
            self.repeated.add(patient)
        self._seen.add((patient, name))


def quality_counts(training: Collection[tuple[str, int]], noticed: Noticed) -> tuple[int, int, int]:
    """Return how many training patients, given by key and label, are positive, have something unreadable, or repeated.

    Guarantee: one patient more or less moves each count by at most one.
    """
    keys = {key for key, _ in training}
    positive = sum(label == 1 for _, label in training)
    return positive, len(keys & noticed.unreadable), len(keys & noticed.repeated)
