"""The messages between hub and sites, each with its version.

Every message is canonical JSON inside a signed envelope (`signing.py`). Hub to site, by mailbox: `StudyProposal`,
`RoundTask`, `TaskCancelled`, `StudyClosed`, `LedgerRecord`; in answer to a message: `Receipt`. Site to hub, admitted
and signed by the site's gate: `Approval`, `LedgerCharge`, `Progress`, `TaskRefusal`, `UpdateNotice`,
`EvaluationReport`, `ReadinessReport` (`readiness.py`). By the site's administrator, once: `Enrolment`. The messages
of secure aggregation are in `secure_messages.py`. These are all the kinds there are; the gate lets no other leave.

What leaves a hospital is listed here and nowhere else: words from fixed vocabularies, digests, sizes, figures that the
site has approved as public, and noised or held-out sums. No free text crosses towards the hub.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from protocol.compression.steps import CodecStep
from protocol.concordance import PairCounts
from protocol.digest import Digest, parse_json
from protocol.errors import DigestError, MessageError
from protocol.homomorphic_messages import DecryptionRequest
from protocol.label import MAX_CLASSES
from protocol.message import Count, Message, MessageType, RoundNumber
from protocol.metrics import ScoreHistograms
from protocol.privacy_events import PrivacyEvent
from protocol.readiness import ReadinessReport
from protocol.round_receipts import RoundReceipt
from protocol.secure_messages import SECURE_HUB_TO_SITE, SECURE_SITE_TO_HUB
from protocol.site_rates import QualityFigures
from protocol.study_parts import HeldOutSplit, Name
from protocol.value_histograms import ValueHistogram

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 4 << 20
MAX_RECORD_CHARGES = 50


class TaskKind(StrEnum):
    """What a hub may ask of a site."""

    INITIALISE = "initialise"
    TRAIN = "train"
    EVALUATE = "evaluate"
    DECRYPT = "decrypt"
    """Never sent as a RoundTask: its request is a DecryptionRequest."""


class Reason(StrEnum):
    """Why a site refuses or fails; the whole vocabulary. `site_node/governance/reasons.py` has the remedies."""

    NOT_APPROVED = "not-approved"
    APPROVAL_EXPIRED = "approval-expired"
    APPROVAL_WITHDRAWN = "approval-withdrawn"
    POLICY = "policy"
    BUDGET_SPENT = "budget-spent"
    LEDGER_BEHIND = "ledger-behind"
    TOO_MANY_TASKS = "too-many-tasks"
    ROUND_ALREADY_ANSWERED = "round-already-answered"
    UNKNOWN_STUDY = "unknown-study"
    BAD_TASK = "bad-task"
    TOO_FEW_PATIENTS = "too-few-patients"
    LABELS_UNUSABLE = "labels-unusable"
    NO_HELD_OUT_PATIENTS = "no-held-out-patients"
    UNKNOWN_NETWORK = "unknown-network"
    UNKNOWN_TENSOR = "unknown-tensor"
    BASE_UNAVAILABLE = "base-unavailable"
    NOT_FINITE = "not-finite"
    PERSONAL_MODEL_DIVERGED = "personal-model-diverged"
    PERSONAL_MODEL_GONE = "personal-model-gone"
    OUT_OF_MEMORY = "out-of-memory"
    DEVICE_LOST = "device-lost"
    DISK_FULL = "disk-full"
    PAUSED = "paused"
    UNKNOWN_PEER = "unknown-peer"
    INTERNAL = "internal"


class Activity(StrEnum):
    """What a site says it is doing; the whole vocabulary of heartbeats."""

    IDLE = "idle"
    WAITING = "waiting"
    TRAINING = "training"
    EVALUATING = "evaluating"
    SENDING = "sending"
    PAUSED = "paused"


class ModelReference(Message):
    """A version of the study's lineage, as tasks and updates name it."""

    number: RoundNumber
    weights_digest: Digest
    weights_bytes: Count
    manifest_digest: Digest


class VersionDifference(Message):
    """The file that leads from an earlier version to a task's base (`compression/differences.py`)."""

    from_digest: Digest
    blob: Digest
    bytes: Count


class LedgerHead(Message):
    """A state of a site's privacy ledger: how many entries, and the chain's hash over them."""

    number: Count
    chain: Digest


class StudyProposal(Message):
    """Hub to site: here is a study; will you take part? `study` is the specification itself."""

    schema_: Literal["wardround.study-proposal/1"] = Field(default="wardround.study-proposal/1", alias="schema")
    study_digest: Digest
    study: dict[str, Any]
    noise_multiplier: float | None = Field(
        description="the hub's calibration; the gate checks it against the target itself"
    )
    ledger_head: LedgerHead | None = Field(default=None, description="the site's last head that the hub countersigned")


class RoundTask(Message):
    """Hub to site: do this in this round. No clock time in it: its digest keys the site's noise stream.

    `sequence` counts the tasks of this kind for this site and study from 1; it bounds what the ledger was charged for.
    """

    schema_: Literal["wardround.round-task/1"] = Field(default="wardround.round-task/1", alias="schema")
    task_id: Annotated[str, Field(max_length=200, pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    kind: TaskKind
    study_digest: Digest
    site: Name
    round: RoundNumber
    sequence: Annotated[int, Field(ge=1, le=1_000_000)]
    base: ModelReference | None = Field(description="null only for initialise")
    noise_multiplier: float | None = None
    update_norm: float | None = Field(default=None, description="site-level: the length to cut the update to")
    control: ModelReference | None = Field(
        default=None, description="scaffold: the control variate of all sites, as a file of the base version's form"
    )
    difference: VersionDifference | None = Field(
        default=None, description="the base as a difference, for a site that holds the version before it"
    )
    rate_factor: float | None = Field(default=None, description="site_rates: what the round's learning rate is times")
    deadline_seconds: float = Field(gt=0, description="from the moment of receipt")
    ledger_head: LedgerHead | None = Field(default=None, description="the site's last head that the hub countersigned")


class TaskCancelled(Message):
    """Hub to site: the round is over; an answer would be late."""

    schema_: Literal["wardround.task-cancelled/1"] = Field(default="wardround.task-cancelled/1", alias="schema")
    task_id: str
    study_digest: Digest


class StudyClosed(Message):
    """Hub to site: the study has ended."""

    schema_: Literal["wardround.study-closed/1"] = Field(default="wardround.study-closed/1", alias="schema")
    study_digest: Digest
    state: Literal["completed", "failed", "stopped"]


class LedgerRecord(Message):
    """Hub to site whose ledger is behind: the charges that it signed itself, as this hub keeps them, oldest first.

    One with fewer than `MAX_RECORD_CHARGES` is the last: the site has heard all, none if it is empty.
    """

    schema_: Literal["wardround.ledger-record/1"] = Field(default="wardround.ledger-record/1", alias="schema")
    site: Name
    charges: list[Annotated[str, Field(max_length=64 * 1024)]] = Field(
        max_length=MAX_RECORD_CHARGES, description="envelopes of LedgerCharge"
    )


class LedgerCharge(Message):
    """Site to hub: what the site's privacy ledger was charged for a study, before it starts, and its new head.

    The events are the study's planned maximum for each group of patients; which patients, and how many, is not told.
    The hub's signed receipt is the countersignature of the head. `follows` is the head of the charge before this one.
    """

    schema_: Literal["wardround.ledger-charge/1"] = Field(default="wardround.ledger-charge/1", alias="schema")
    site: Name
    study_digest: Digest
    number: Count
    chain: Digest
    follows: LedgerHead | None
    delta: float = Field(gt=0, lt=1)
    charged: dict[Literal["training", "held-out"], Annotated[list[PrivacyEvent], Field(max_length=100)]]
    unprotected: bool = Field(default=False, description="trains without differential privacy")

    @property
    def head(self) -> LedgerHead:
        """Return the ledger's head after the charge."""
        return LedgerHead(number=self.number, chain=self.chain)


class Approval(Message):
    """Site to hub: a decision over the study's digest.

    `training_patients` is the site's public figure, which counts who matches the study, also those whom their spent
    budget keeps out: the number that its administrator approves to be known, on which the neighbouring relation of the
    guarantee rests (DESIGN: REPLACE_SPECIAL). Zero for a site that only evaluates. With `count_epsilon` it is how many
    train, with noise of this epsilon, charged; null says that it is exact.
    `quality` is there where the study reads it (`site_rates`) and the site trains: noised, charged, released this once.
    """

    schema_: Literal["wardround.approval/1"] = Field(default="wardround.approval/1", alias="schema")
    site: Name
    study_digest: Digest
    decision: Literal["approved", "refused", "withdrawn"]
    reason: Reason | None = None
    training_patients: Count = 0
    count_epsilon: float | None = Field(default=None, gt=0, le=1000)
    evaluates: bool = True
    expires_at: str | None = Field(default=None, max_length=40, description="RFC 3339, UTC")
    quality: QualityFigures | None = None


class Progress(Message):
    """Site to hub: a heartbeat. `fraction` is of planned steps, which depends on no patient."""

    schema_: Literal["wardround.progress/1"] = Field(default="wardround.progress/1", alias="schema")
    site: Name
    activity: Activity
    task_id: str | None = Field(default=None, max_length=200)
    fraction: Annotated[float, Field(ge=0, le=1)] = 0.0


class TaskRefusal(Message):
    """Site to hub: this task will not be done, for a reason of the fixed vocabulary."""

    schema_: Literal["wardround.task-refusal/1"] = Field(default="wardround.task-refusal/1", alias="schema")
    site: Name
    task_id: Annotated[str, Field(max_length=200)]
    study_digest: Digest
    reason: Reason


class PrivacySpent(Message):
    """The site's own account of a study so far: recomputed from its ledger's events."""

    unit: Literal["patient"] = "patient"
    epsilon: float = Field(ge=0)
    delta: float = Field(gt=0, lt=1)
    events_digest: Digest


UpdateStep = (
    Literal["difference", "weights", "gradient"]
    | CodecStep
    | Literal["quantised", "skellam", "masked", "encrypted", "decrypted"]
)


class UpdateNotice(Message):
    """Site to hub: the payload of this digest and size is the answer to this task.

    `steps` lists what was done to the difference of weights, in order, so that the hub can undo it in reverse.
    `weight` is the public figure of the approval, or 1. `uncut` is a noised bit, charged with the update: near 1 if the
    update needed no cutting to the round's length (site-level privacy with an adaptive length).
    """

    schema_: Literal["wardround.update/1"] = Field(default="wardround.update/1", alias="schema")
    site: Name
    task_id: Annotated[str, Field(max_length=200)]
    task_digest: Digest
    study_digest: Digest
    round: RoundNumber
    base_digest: Digest | None
    payload_digest: Digest
    payload_bytes: Count
    manifest_digest: Digest
    steps: list[UpdateStep]
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    privacy: PrivacySpent | None
    uncut: Annotated[float, Field(allow_inf_nan=False)] | None = None
    receipt: RoundReceipt | None = Field(default=None, description="of a training: of how many patients it was made")
    key_id: Digest | None = Field(default=None, description="the key that an encrypted update was made with")


class EvaluationReport(Message):
    """Site to hub: score histograms of held-out patients for one version; `noise_epsilon` null says un-noised.

    Of several classes or findings a pair of histograms for each, in their order, in `classes`. Of a survival study
    counts of ordered pairs in place of histograms, always un-noised. Of segmentation a histogram of patients' Dice
    coefficients for each class but the background, of regression one of absolute errors, in `values`. Which field a
    study fills is in `held_out.py`.
    """

    schema_: Literal["wardround.evaluation/1"] = Field(default="wardround.evaluation/1", alias="schema")
    site: Name
    task_id: Annotated[str, Field(max_length=200)]
    task_digest: Digest
    study_digest: Digest
    version: ModelReference
    histograms: dict[HeldOutSplit, ScoreHistograms] = Field(default={})
    classes: dict[HeldOutSplit, Annotated[list[ScoreHistograms], Field(max_length=MAX_CLASSES)]] = Field(default={})
    pairs: dict[HeldOutSplit, PairCounts] = Field(default={})
    values: dict[HeldOutSplit, Annotated[list[ValueHistogram], Field(max_length=MAX_CLASSES)]] = Field(default={})
    noise_epsilon: float | None


class Receipt(Message):
    """Hub to site, signed: this message arrived and was or was not taken."""

    schema_: Literal["wardround.receipt/1"] = Field(default="wardround.receipt/1", alias="schema")
    message_digest: Digest
    accepted: bool
    reason: str = Field(default="", max_length=500)
    received_at: str = Field(max_length=40)


class Enrolment(Message):
    """Site's administrator to hub, once, signed by the identity key: these are our keys.

    The identity key (of the gate) signs messages; the transport key (of the agent) only opens the connection.
    """

    schema_: Literal["wardround.enrolment/1"] = Field(default="wardround.enrolment/1", alias="schema")
    site: Name
    code: Annotated[str, Field(max_length=100)]
    identity_key: Annotated[str, Field(max_length=100)]
    transport_key: Annotated[str, Field(max_length=100)]
    protocol_version: int


HUB_TO_SITE: tuple[type[Message], ...] = (
    StudyProposal,
    RoundTask,
    TaskCancelled,
    StudyClosed,
    LedgerRecord,
    Receipt,
    *SECURE_HUB_TO_SITE,
    DecryptionRequest,
)
SITE_TO_HUB: tuple[type[Message], ...] = (
    ReadinessReport,
    Approval,
    LedgerCharge,
    Progress,
    TaskRefusal,
    UpdateNotice,
    EvaluationReport,
    *SECURE_SITE_TO_HUB,
)
_ALL_KINDS: tuple[type[Message], ...] = (*HUB_TO_SITE, *SITE_TO_HUB, Enrolment)
_BY_SCHEMA: dict[str, type[Message]] = {str(k.model_fields["schema_"].default): k for k in _ALL_KINDS}


def parse_message(payload: bytes) -> Message:
    """Parse a message's bytes by its `schema`.

    Raises: MessageError if it is too large, not JSON, of an unknown kind or version, or has wrong fields. The error
        names fields, never their values.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MessageError(f"A message holds at most {MAX_MESSAGE_BYTES} bytes.")
    try:
        document = parse_json(payload)
    except DigestError as error:
        raise MessageError(str(error)) from error
    schema = document.get("schema") if isinstance(document, dict) else None
    kind = _BY_SCHEMA.get(schema) if isinstance(schema, str) else None
    if kind is None:
        raise MessageError("The message is of an unknown kind or version. Both sides must speak protocol 1.")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, e["loc"])) for e in error.errors(include_input=False)}))
        raise MessageError(f"A {schema} message has wrong or missing fields: {fields}.") from None


def expect(payload: bytes, kind: type[MessageType]) -> MessageType:
    """Parse a message that must be of one kind.

    Raises: MessageError if it is of another.
    """
    message = parse_message(payload)
    if not isinstance(message, kind):
        raise MessageError(f"Expected a {kind.__name__}, got a {type(message).__name__}.")
    return message
