"""What a site's two APIs answer, as frozen values. Parsed with pydantic, so that a site of another version is noticed.

Names follow the APIs to the letter. Times are UTC seconds since the epoch. A count of None is one that the site hides.
"""

from dataclasses import dataclass, field
from typing import Any

Counts = dict[str, int | None]


@dataclass(frozen=True)
class SitePerson:
    """Whose token it is, and until when it counts."""

    name: str
    role: str
    ends_at: float


@dataclass(frozen=True)
class SiteTask:
    """A task that is at work or waits."""

    task_id: str
    state: str
    activity: str | None = None
    fraction: float | None = None


@dataclass(frozen=True)
class Standing:
    """Where the site stands."""

    site: str
    hub: str
    enrolled: bool
    paused: bool
    draining: bool
    ledger_behind: bool
    behind_mark: bool
    outbox: int
    egress_entries: int
    tasks: list[SiteTask] = field(default_factory=list)
    train_hours: dict[str, Any] | None = None


@dataclass(frozen=True)
class ProposedStudy:
    """A study that was proposed here, with what stands in its way; one that did not parse has no name."""

    digest: str
    state: str
    name: str = ""
    title: str = ""
    reason: str | None = None
    explanation: str = ""
    policy_objection: str | None = None
    standing: str = "undecided"
    decided_by: str | None = None
    expires_at: str | None = None
    epsilon: float | None = None
    delta: float | None = None
    rounds: int | None = None
    network: str | None = None
    training_patients: int | None = None
    held_out_patients: int | None = None

    @property
    def label(self) -> str:
        """Return the title, or else the name, or else the digest's beginning."""
        return self.title or self.name or self.digest[:17]

    @property
    def is_approved(self) -> bool:
        """Tell whether an approval stands: a person's, whether or not the gate has taken it up, or the policy's."""
        return self.standing == "approved" or (self.standing == "undecided" and self.state == "approved")


@dataclass(frozen=True)
class StudyInWords:
    """A study's page; who decides is given the digest of what they read."""

    digest: str
    state: str
    summary: dict[str, list[str]]
    specification: dict[str, Any]
    shown_digest: str | None = None


@dataclass(frozen=True)
class TaskEntry:
    """A task of the gate's records."""

    task_id: str
    state: str
    reason: str | None
    received_at: float


@dataclass(frozen=True)
class ChargedStudy:
    """What a study was charged in the privacy ledger; no epsilon: it is not differentially private."""

    study_digest: str
    epsilon: float | None
    delta: float | None
    unprotected: bool
    held_out_unprotected: bool = False


@dataclass(frozen=True)
class Budget:
    """The privacy ledger's account."""

    lifetime_epsilon: float
    lifetime_delta: float
    epsilon: float
    share_used: float
    meaning: str
    fits_epsilon: float
    fits_epsilon_new_patient: float
    fits_delta: float
    entries: int
    head: str | None
    behind: bool
    studies: list[ChargedStudy] = field(default_factory=list)
    used: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class EgressEntry:
    """Something that left, or waits to."""

    number: int
    time: float
    kind: str
    message_digest: str | None = None
    envelope_bytes: int = 0
    payload_bytes: int = 0
    study_digest: str | None = None
    round: int | None = None
    receipt: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        """Return how many bytes left: the signed message and what it carries."""
        return self.envelope_bytes + self.payload_bytes


@dataclass(frozen=True)
class DoctorFinding:
    """One thing that the doctor, or a readiness report, looked at."""

    check: str
    level: str
    says: str
    remedy: str = ""
    part: str = ""


@dataclass(frozen=True)
class IndexPage:
    """What the index holds, in tens."""

    changed_at: float
    hidden_below: int
    roots: list[dict[str, Any]]
    modalities: dict[str, Counts]
    found: Counts
    unusable: Counts
    fallen_out: list[str]
    doubtful_patients: int | None
    several_ids: int | None


@dataclass(frozen=True)
class ReadinessReport:
    """What `wardround site check` says of a study."""

    ready: bool
    findings: list[DoctorFinding]
    patients: dict[str, Any]
    machine: dict[str, Any]


@dataclass(frozen=True)
class Readiness:
    """How a report stands: none, looking, failed or done."""

    state: str
    report: ReadinessReport | None = None
    made_at: float | None = None
    asked_by: str | None = None
    explanation: str = ""


@dataclass(frozen=True)
class Room:
    """A study's open reading room; without classes its cases are only looked at."""

    study_digest: str
    name: str
    title: str
    classes: list[str]
    several: bool
    cases: int
    read: int
    opened_by: str
    opened_at: float

    @property
    def label(self) -> str:
        """Return the title, or else the name."""
        return self.title or self.name


@dataclass(frozen=True)
class CaseEntry:
    """A case in a room's list."""

    case: str
    images: int
    read: bool


@dataclass(frozen=True)
class GivenReading:
    """A person's judgement of a case; `site_labels` are the hospital's own, for who may see them."""

    labels: list[str]
    confidence: int
    given_at: float
    person: str = ""
    case_code: str = ""
    site_labels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CasePage:
    """A case: how many slices each image has, and, once it is read, the reading and the hospital's own labels."""

    case: str
    slices: list[int]
    reading: GivenReading | None = None
    site_labels: list[str] | None = None


@dataclass(frozen=True)
class View:
    """Somebody was shown a picture, or was not."""

    number: int
    at: float
    person: str
    case_code: str
    image: int
    slice: int
    outcome: str
