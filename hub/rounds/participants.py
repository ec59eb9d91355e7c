"""Which sites are asked, and what their answer weighs. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from protocol.digest import Digest
from protocol.secure_aggregation.roster import FEWEST_MEMBERS
from protocol.site_sampling import drawn_sites, sites_asked
from protocol.strategy_rules import fewest_updates, joining_needs
from protocol.study import StudySpec
from protocol.study_parts import Participants

APPROVED = "approved"


@dataclass(frozen=True)
class Participant:
    """A site's standing in a study: its answer to the proposal and the figures it approved to be public."""

    site: str
    state: str
    training_patients: int
    evaluates: bool
    expires_at: float | None = None

    def takes_part(self, now: float) -> bool:
        """Tell whether its approval holds now."""
        return self.state == APPROVED and (self.expires_at is None or now < self.expires_at)


def taking_part(participants: Iterable[Participant], now: float) -> list[Participant]:
    """Return the sites whose approval holds, by name."""
    return sorted((p for p in participants if p.takes_part(now)), key=lambda p: p.site)


def trainers(participants: Iterable[Participant], now: float) -> list[Participant]:
    """Return the sites to be asked for training: those with patients to train on."""
    return [p for p in taking_part(participants, now) if p.training_patients > 0]


def drawn(names: Sequence[str], study_digest: Digest, number: int, terms: Participants) -> list[str]:
    """Return those of the sites that a round asks: all of them, or the study's fraction by the public draw."""
    return drawn_sites(study_digest, number, names, sites_asked(len(names), terms.sampled, terms.minimum_sites))


def judges(participants: Iterable[Participant], now: float) -> list[Participant]:
    """Return the sites to be asked for evaluation."""
    return [p for p in taking_part(participants, now) if p.evaluates]


def initialisers(participants: Iterable[Participant], now: float) -> list[Participant]:
    """Return the sites that may build version 0, those that train first: any site can, from the study's seed."""
    return sorted(taking_part(participants, now), key=lambda p: (p.training_patients == 0, p.site))


def weight_of(training_patients: int, weighting: Literal["patients", "equal", "noise"]) -> float:
    """Return the weight that an update of this site comes with; `patients` is the approval's public figure.

    With `noise` it comes with the patients too, from which the hub works out what the noise leaves of it.
    """
    return 1.0 if weighting == "equal" else float(training_patients)


def fewest_sites(study: StudySpec) -> int:
    """Return with how many approvals a study that has begun goes on: what the smallest of its rounds may close with.

    A sum that hides its parts goes on with no smaller a crowd than the hospitals approved.
    """
    hides = study.secure_aggregation.method != "none"
    return study.participants.minimum_sites if hides else fewest_updates(study)


def sites_problem(study: StudySpec, asked: int) -> str | None:
    """Say why so many sites' updates cannot be joined as the study wants, or None."""
    terms, needed = study.secure_aggregation, joining_needs(study)
    if asked < needed and needed > 1:
        how = study.strategy.join
        return f"{asked} sites would train, and {how!r} needs {needed} updates. More hospitals must approve."
    if terms.method == "none":
        return None
    if asked < FEWEST_MEMBERS:
        return f"{asked} sites would train; a sum that tells nothing of one of them needs {FEWEST_MEMBERS}."
    if terms.maximum_sites is not None and asked > terms.maximum_sites:
        return f"{asked} sites would train; the study's sums hold at most {terms.maximum_sites}."
    return None
