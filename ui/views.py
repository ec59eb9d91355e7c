"""What the hub's API answers, as frozen values. Parsed with pydantic, so that a hub of another version is noticed.

Names follow the API to the letter. Times are UTC seconds since the epoch; a count of None under `Metrics` means that
the hub hides it, because fewer than five patients are behind it.
"""

from dataclasses import dataclass, field
from typing import Any

from ui.readiness import Readiness
from ui.used_patients import Receipt

FIGURES = {"dice": "Dice", "absolute-error": "Mean absolute error"}
"""What the mean of a figure is called."""


@dataclass(frozen=True)
class Person:
    """Who is signed in."""

    name: str
    role: str


@dataclass(frozen=True)
class PersonEntry:
    """Someone who may sign in, as the operator sees them."""

    name: str
    role: str
    created_at: float | None = None
    disabled: bool = False


@dataclass(frozen=True)
class Quality:
    """How many training patients are positive, have a damaged or missing image, have one twice; None where hidden."""

    positive: int | None = None
    unreadable: int | None = None
    repeated: int | None = None
    noise_epsilon: float | None = None


@dataclass(frozen=True)
class StudySite:
    """A hospital's answer to a study."""

    site: str
    state: str
    reason: str | None = None
    training_patients: int | None = None
    evaluates: bool = True
    quality: Quality | None = None
    readiness: Readiness | None = None


@dataclass(frozen=True)
class StudyPrivacy:
    """What the study promises a patient and what is spent of it."""

    unit: str = "patient"
    epsilon_target: float | None = None
    epsilon: float | None = None
    delta: float | None = None


@dataclass(frozen=True)
class Study:
    """A research study and where it stands."""

    digest: str
    name: str
    title: str
    description: str
    state: str
    reason: str | None
    kind: str
    study: dict[str, Any]
    noise_multiplier: float | None
    rounds_planned: int
    round: int | None
    proposed_by: str
    proposed_at: float
    started_at: float | None
    ended_at: float | None
    final_version: int | None
    privacy: StudyPrivacy
    sites: list[StudySite]

    @property
    def judges_personal_models(self) -> bool:
        """Tell whether each hospital judges its own model in place of the study's version."""
        terms = self.study.get("personal") or {}
        is_personal = bool(terms.get("keep")) or terms.get("ditto") is not None
        return is_personal and terms.get("judged", "own") == "own"

    @property
    def label(self) -> str:
        """Return the title, or the name where there is none."""
        return self.title or self.name

    @property
    def full_label(self) -> str:
        """Return the title with the short name beside it, which files, tasks and logs use."""
        return f"{self.title} ({self.name})" if self.title else self.name


@dataclass(frozen=True)
class Mean:
    """The mean and median of a figure over held-out patients, the mean with its interval; None where hidden."""

    mean: float | None = None
    mean_low: float | None = None
    mean_high: float | None = None
    median: float | None = None


@dataclass(frozen=True)
class Metrics:
    """How good a version is on held-out patients; None where undefined or hidden."""

    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    brier: float | None = None
    ece: float | None = None
    patients: int | None = None
    positives: int | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    accuracy: float | None = None
    concordance: float | None = None
    figure: str | None = None
    """What is counted of patients where they are not scored: dice, absolute-error."""
    mean: float | None = None
    mean_low: float | None = None
    mean_high: float | None = None
    median: float | None = None
    figures: list[Mean] = field(default_factory=list)
    """The same of each class but the background."""
    classes: list["Curves"] = field(default_factory=list)
    """Of several classes each against all others; what stands beside is their mean."""
    classes_shown: int | None = None
    by_split: dict[str, "Metrics"] = field(default_factory=dict)
    noise_epsilon: float | None = None
    privacy: str = ""
    counts: str = ""
    """Whose counts the hub holds: each hospital's in clear, or their sum under masks alone."""

    @property
    def score(self) -> float | None:
        """Return what versions are compared by: the AUC, or survival's concordance, the same chance over pairs.

        Of patients who are not scored the mean of their figure.
        """
        if self.figure is not None:
            return self.mean
        return self.auc if self.concordance is None else self.concordance

    @property
    def score_low(self) -> float | None:
        """Return the lower end of the score's interval, None where it has none."""
        return self.auc_low if self.figure is None else self.mean_low

    @property
    def score_high(self) -> float | None:
        """Return the upper end of the score's interval, None where it has none."""
        return self.auc_high if self.figure is None else self.mean_high

    @property
    def score_name(self) -> str:
        """Return what `score` is."""
        if self.figure is not None:
            return FIGURES.get(self.figure, self.figure)
        if self.classes:
            return "Mean AUC"
        return "AUC" if self.concordance is None else "Concordance"


@dataclass(frozen=True)
class RateParts:
    """What a hospital's next factor is made of: values of its data and its updates, and two cosines."""

    quality: float | None = None
    updates: float | None = None
    agreement: float | None = None
    trend: float | None = None


@dataclass(frozen=True)
class RoundSite:
    """What a hospital did in a round."""

    site: str
    train_state: str | None = None
    evaluate_state: str | None = None
    reason: str | None = None
    activity: str | None = None
    fraction: float | None = None
    patients: int | None = None
    epsilon: float | None = None
    update_bytes: int | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None
    train_seconds: float | None = None
    usual_seconds: float | None = None
    task_round: int | None = None
    """The round that the hospital trains for, where that is an earlier one."""
    counted_in: int | None = None
    staleness: int | None = None
    norm: float | None = None
    rate_factor: float | None = None
    """What the round's learning rate was multiplied by at this hospital."""
    rate_parts: RateParts | None = None
    receipt: Receipt | None = None
    metrics: Metrics | None = None


@dataclass(frozen=True)
class Round:
    """A round of a study."""

    number: int
    state: str
    version: int | None
    opened_at: float
    deadline_at: float | None
    ended_at: float | None
    seconds: float | None
    reason: str | None
    metrics: Metrics | None
    sites: list[RoundSite]
    deadline_learned: bool = False
    updates_waiting: int | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def bytes_up(self) -> int:
        """Return the bytes that left hospitals."""
        return sum(site.bytes_up or 0 for site in self.sites)

    @property
    def bytes_down(self) -> int:
        """Return the bytes that hospitals fetched."""
        return sum(site.bytes_down or 0 for site in self.sites)

    @property
    def epsilon(self) -> float | None:
        """Return the largest epsilon that a hospital had spent after this round."""
        return max((site.epsilon for site in self.sites if site.epsilon is not None), default=None)


@dataclass(frozen=True)
class VersionParticipant:
    """A hospital whose update is in a version."""

    site: str
    weight: float
    update_digest: str | None = None
    share: float | None = None
    """What its update counted, where the hub gave it another weight than it came with."""
    used: Receipt | None = None


@dataclass(frozen=True)
class VersionPrivacy:
    """What a patient had given away when this version was made."""

    epsilon: float | None = None
    delta: float | None = None


@dataclass(frozen=True)
class Decision:
    """A clinician's recorded judgement of a version."""

    person: str
    decision: str
    comment: str
    decided_at: float


@dataclass(frozen=True)
class Curves(Metrics):
    """Metrics with their curves: of the pooled patients, or of one hospital's."""

    site: str = ""
    roc: list[tuple[float, float]] = field(default_factory=list)
    calibration: list[tuple[float, float, int | None]] = field(default_factory=list)


@dataclass(frozen=True)
class Validation:
    """A version's metrics on held-out patients, pooled and per hospital."""

    pooled: Curves | None
    sites: list[Curves]


@dataclass(frozen=True)
class Version:
    """A registered model and where it came from."""

    number: int
    digest: str
    weights_bytes: int
    manifest_digest: str
    parents: list[str]
    round: int
    created_at: float
    participants: list[VersionParticipant]
    privacy: VersionPrivacy | None
    metrics: Metrics | None
    decisions: list[Decision]
    lineage_envelope: Any = None
    validation: Validation | None = None
    server_step: float | None = None
    """How far the hub went along the joined update, where the strategy finds that out in each round."""


@dataclass(frozen=True)
class Site:
    """A hospital, as the hub sees it."""

    name: str
    state: str
    enrolled_at: float | None = None
    last_seen_at: float | None = None
    online: bool = False
    activity: str | None = None
    fraction: float | None = None
    task: str | None = None


@dataclass(frozen=True)
class Invitation:
    """A one-time code; it is shown once and kept nowhere."""

    name: str
    code: str
    expires_at: float


@dataclass(frozen=True)
class AuditEntry:
    """One line of the audit log."""

    number: int
    time: float
    actor: str
    action: str
    subject: str
    details: Any
    hash: str
    chain: str | None = None


@dataclass(frozen=True)
class AuditHead:
    """What stands for the whole log: its size and digests, signed by the hub."""

    size: int
    root: str
    chain: str
    envelope: str


@dataclass(frozen=True)
class AuditPage:
    """Some lines of the audit log and the head of the whole."""

    entries: list[AuditEntry]
    head: AuditHead | None = None


@dataclass(frozen=True)
class AuditVerdict:
    """The answer of a verification."""

    ok: bool
    entries: int
    head: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class StudyCheck:
    """The price of a specification, before anyone is asked."""

    digest: str
    noise_multiplier: float | None
    epsilon_by_round: list[float]
    study: dict[str, Any]
