"""Who is called into a study's cohort: the patients whose lifetime budget covers it, each noted by pseudonym."""

from dataclasses import dataclass, field

from protocol.study_parts import Split
from site_node.cohort.cohort import Cohort, Patient
from site_node.cohort.identities import AS_THEY_ARE, Identities
from site_node.cohort_members import CohortMembers, SpentPatients, ledger_pseudonym


@dataclass
class Roll:
    """Asks for each patient once whether they may take part, and remembers the answers. Never logged."""

    spent: SpentPatients
    key: bytes
    identities: Identities = AS_THEY_ARE
    _called: dict[str, Split] = field(default_factory=dict)
    _left_out: dict[str, Split] = field(default_factory=dict)
    _merged: list[list[str]] = field(default_factory=list)

    @property
    def has_left_out(self) -> bool:
        """Tell whether anybody was left out."""
        return bool(self._left_out)

    def may_take_part(self, patient: Patient) -> bool:
        """Tell whether a patient's budget covers the study."""
        pseudonym = ledger_pseudonym(patient.key, self.key)
        others = [ledger_pseudonym(one, self.key) for one in self.identities.known_as(patient.key)]
        if len(others) > 1:
            self._merged.append([pseudonym, *sorted(set(others) - {pseudonym})])
        excluded = any(self.spent.excludes(who, patient.split) for who in (pseudonym, *others))
        (self._left_out if excluded else self._called)[pseudonym] = patient.split
        return not excluded

    def members(self, study_digest: str, cohort: Cohort | None) -> CohortMembers:
        """Return the frozen cohort by pseudonym, and who is not in it."""
        frozen = {ledger_pseudonym(patient.key, self.key) for patient in cohort.patients} if cohort else set()
        training = {pseudonym for pseudonym, split in self._called.items() if split == "train"}
        left_out = {pseudonym for pseudonym, split in self._left_out.items() if split == "train"}
        return CohortMembers(
            study_digest=study_digest,
            training=sorted(training & frozen),
            held_out=sorted(frozen - training),
            validation=sorted(who for who in frozen if self._called.get(who) == "validation"),
            withheld=sorted(training - frozen),
            spent_training=sorted(left_out),
            spent_held_out=sorted(self._left_out.keys() - left_out),
            merged=sorted(self._merged),
        )
