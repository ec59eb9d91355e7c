"""The hub's tables. SQLAlchemy lives in this folder only.

Times are UTC seconds since the epoch (float), from the hub's clock. Documents (specifications, messages, envelopes) are
kept as the bytes that arrived, because digests and signatures are over those bytes.
"""

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Declarative base; its metadata is what the migrations build."""


class SiteRow(Base):
    """A hospital: invited, enrolled or suspended (`hub/auth/enrolment.py`)."""

    __tablename__ = "sites"
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    identity_key: Mapped[str | None] = mapped_column(String(100))
    transport_key: Mapped[str | None] = mapped_column(String(100))
    code_hash: Mapped[str | None] = mapped_column(String(200))
    code_expires_at: Mapped[float | None] = mapped_column(Float)
    enrolled_at: Mapped[float | None] = mapped_column(Float)
    last_seen_at: Mapped[float | None] = mapped_column(Float)
    activity: Mapped[str] = mapped_column(String(20), default="idle")
    activity_task: Mapped[str | None] = mapped_column(String(200))
    activity_fraction: Mapped[float] = mapped_column(Float, default=0.0)


class PersonRow(Base):
    """Someone who signs in; the password is kept as an argon2 hash."""

    __tablename__ = "people"
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    role: Mapped[str] = mapped_column(String(20))
    password_hash: Mapped[str] = mapped_column(String(300))
    created_at: Mapped[float] = mapped_column(Float)
    disabled: Mapped[bool] = mapped_column(default=False)


class SignInFailureRow(Base):
    """How many sign-ins failed lately (`hub/auth/throttling.py`); the counter is a keyed digest, not a name."""

    __tablename__ = "sign_in_failures"
    counter: Mapped[str] = mapped_column(String(64), primary_key=True)
    failures: Mapped[int] = mapped_column(Integer)
    failed_at: Mapped[float] = mapped_column(Float, index=True)


class StudyRow(Base):
    """A study and its state (`hub/studies/lifecycle.py`)."""

    __tablename__ = "studies"
    digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    specification: Mapped[bytes] = mapped_column(LargeBinary)
    noise_multiplier: Mapped[float | None] = mapped_column(Float)
    state: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(String(500), default="")
    proposed_by: Mapped[str] = mapped_column(String(63))
    proposed_at: Mapped[float] = mapped_column(Float)
    started_at: Mapped[float | None] = mapped_column(Float)
    ended_at: Mapped[float | None] = mapped_column(Float)
    final_version: Mapped[int | None] = mapped_column(Integer)


class ParticipantRow(Base):
    """A site's answer to a study's proposal, with the figures it approved to be public."""

    __tablename__ = "participants"
    study: Mapped[str] = mapped_column(ForeignKey("studies.digest"), primary_key=True)
    site: Mapped[str] = mapped_column(ForeignKey("sites.name"), primary_key=True)
    state: Mapped[str] = mapped_column(String(20))  # invited, approved, refused, withdrawn
    reason: Mapped[str | None] = mapped_column(String(40))
    training_patients: Mapped[int] = mapped_column(Integer, default=0)
    evaluates: Mapped[bool] = mapped_column(default=True)
    expires_at: Mapped[float | None] = mapped_column(Float)
    approval: Mapped[bytes | None] = mapped_column(LargeBinary)
    quality: Mapped[str | None] = mapped_column(Text)  # QualityFigures of protocol/site_rates.py, as JSON
    answered_at: Mapped[float | None] = mapped_column(Float)


class ReadinessRow(Base):
    """What a site told of its readiness for a study (`protocol/readiness.py`); a few for each, the last one counts."""

    __tablename__ = "readiness_reports"
    study: Mapped[str] = mapped_column(ForeignKey("studies.digest"), primary_key=True)
    site: Mapped[str] = mapped_column(ForeignKey("sites.name"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    report: Mapped[bytes] = mapped_column(LargeBinary)  # the signed envelope
    received_at: Mapped[float] = mapped_column(Float)


class RoundRow(Base):
    """A round of a study and its state (`hub/rounds/transitions.py`)."""

    __tablename__ = "rounds"
    study: Mapped[str] = mapped_column(ForeignKey("studies.digest"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)  # 0: version 0 is being built
    state: Mapped[str] = mapped_column(String(20), index=True)
    opened_at: Mapped[float] = mapped_column(Float)
    deadline_at: Mapped[float] = mapped_column(Float)
    phase_at: Mapped[float] = mapped_column(Float)  # when the present state began
    ended_at: Mapped[float | None] = mapped_column(Float)
    reason: Mapped[str] = mapped_column(String(500), default="")


class TaskRow(Base):
    """What was asked of a site in a round, and its answer."""

    __tablename__ = "tasks"
    task_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey("studies.digest"), index=True)
    site: Mapped[str] = mapped_column(ForeignKey("sites.name"), index=True)
    round: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(String(20))
    sequence: Mapped[int] = mapped_column(Integer)
    digest: Mapped[str] = mapped_column(String(71))
    document: Mapped[bytes] = mapped_column(LargeBinary)
    state: Mapped[str] = mapped_column(String(20))  # open, delivered, accepted, refused, cancelled
    reason: Mapped[str | None] = mapped_column(String(500))
    opened_at: Mapped[float] = mapped_column(Float)
    answered_at: Mapped[float | None] = mapped_column(Float)
    bytes_down: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes_up: Mapped[int] = mapped_column(BigInteger, default=0)
    __table_args__ = (UniqueConstraint("study", "round", "site", "kind"),)


class UploadRow(Base):
    """A transfer that may be resumed; its bytes lie in the uploads folder under its id."""

    __tablename__ = "uploads"
    upload_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.task_id"), unique=True)
    notice: Mapped[bytes] = mapped_column(LargeBinary)  # the signed envelope
    payload_digest: Mapped[str] = mapped_column(String(71))
    payload_bytes: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(20))  # receiving, accepted, refused
    reason: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[float] = mapped_column(Float)


class UpdateRow(Base):
    """An update that was accepted and will be counted exactly once, by the close of the round that takes it."""

    __tablename__ = "updates"
    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.task_id"), primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey("studies.digest"), index=True)
    round: Mapped[int] = mapped_column(Integer)
    site: Mapped[str] = mapped_column(ForeignKey("sites.name"))
    blob: Mapped[str] = mapped_column(String(71))  # uncompressed safetensors
    weight: Mapped[float] = mapped_column(Float)
    norm: Mapped[float] = mapped_column(Float)
    epsilon: Mapped[float | None] = mapped_column(Float)
    delta: Mapped[float | None] = mapped_column(Float)
    notice: Mapped[bytes] = mapped_column(LargeBinary)
    accepted_at: Mapped[float] = mapped_column(Float)
    taken_in: Mapped[int | None] = mapped_column(Integer)  # number of the round whose close takes it; null: it waits
    staleness: Mapped[int] = mapped_column(Integer, default=0, server_default="0")  # versions between base and close
    counted_in: Mapped[int | None] = mapped_column(Integer)  # number of the version that counted it
    receipt: Mapped[str | None] = mapped_column(String(400))  # protocol/round_receipts.py; null: none came
    __table_args__ = (UniqueConstraint("study", "round", "site"),)


class EvaluationRow(Base):
    """A site's report on a version."""

    __tablename__ = "evaluations"
    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.task_id"), primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey("studies.digest"), index=True)
    round: Mapped[int] = mapped_column(Integer)
    version: Mapped[int] = mapped_column(Integer)
    site: Mapped[str] = mapped_column(ForeignKey("sites.name"))
    report: Mapped[bytes] = mapped_column(LargeBinary)  # the message's bytes
    received_at: Mapped[float] = mapped_column(Float)


class VersionRow(Base):
    """A model version: immutable, with its lineage."""

    __tablename__ = "versions"
    study: Mapped[str] = mapped_column(ForeignKey("studies.digest"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    weights_digest: Mapped[str] = mapped_column(String(71), index=True)
    weights_bytes: Mapped[int] = mapped_column(BigInteger)
    manifest_digest: Mapped[str] = mapped_column(String(71))
    lineage: Mapped[bytes] = mapped_column(LargeBinary)  # signed envelope of hub/registry/lineage.py
    created_at: Mapped[float] = mapped_column(Float)


class LedgerChargeRow(Base):
    """What a site's privacy ledger was charged for a study, in the site's own signed words."""

    __tablename__ = "ledger_charges"
    site: Mapped[str] = mapped_column(ForeignKey("sites.name"), primary_key=True)
    chain: Mapped[str] = mapped_column(String(71), primary_key=True)  # the ledger's head after the charge
    number: Mapped[int] = mapped_column(BigInteger)
    follows: Mapped[str | None] = mapped_column(String(71))  # the chain of the charge before it
    study: Mapped[str] = mapped_column(ForeignKey("studies.digest"), index=True)
    training_epsilon: Mapped[float | None] = mapped_column(Float)  # recomputed here from the events
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[float] = mapped_column(Float)


class LedgerHeadRow(Base):
    """The last head of a site's privacy ledger that this hub has countersigned."""

    __tablename__ = "ledger_heads"
    site: Mapped[str] = mapped_column(ForeignKey("sites.name"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    chain: Mapped[str] = mapped_column(String(71))


class MaskingRoundRow(Base):
    """The masks of one kind of task in a round: the phase, and which sites are how far. Lists of names are JSON."""

    __tablename__ = "masking_rounds"
    study: Mapped[str] = mapped_column(ForeignKey("studies.digest"), primary_key=True)
    round: Mapped[int] = mapped_column(Integer, primary_key=True)
    task_kind: Mapped[str] = mapped_column(String(20), primary_key=True)  # train, evaluate
    phase: Mapped[str] = mapped_column(String(20))  # protocol/secure_aggregation/phases.py
    deadline_at: Mapped[float] = mapped_column(Float)  # of the phase; uploads have the round's
    roster_digest: Mapped[str | None] = mapped_column(String(71))
    asked: Mapped[str] = mapped_column(Text)
    roster: Mapped[str] = mapped_column(Text)  # whose keys were posted
    members: Mapped[str] = mapped_column(Text)  # whose shares were delivered: masks are among these
    survivors: Mapped[str] = mapped_column(Text)  # whose vectors were accepted


class MaskingMessageRow(Base):
    """What a site said in one phase of a masked round, as it signed it."""

    __tablename__ = "masking_messages"
    study: Mapped[str] = mapped_column(ForeignKey("studies.digest"), primary_key=True)
    round: Mapped[int] = mapped_column(Integer, primary_key=True)
    task_kind: Mapped[str] = mapped_column(String(20), primary_key=True)  # train, evaluate
    site: Mapped[str] = mapped_column(ForeignKey("sites.name"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)  # keys, shares, vector, seen, reveal
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[float] = mapped_column(Float)


class PooledEvaluationRow(Base):
    """What the sites' held-out counts on a version sum to, opened from under their masks; no site's own is known."""

    __tablename__ = "pooled_evaluations"
    study: Mapped[str] = mapped_column(ForeignKey("studies.digest"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    report: Mapped[bytes] = mapped_column(LargeBinary)  # PooledReport of hub/rounds/scoring.py
    opened_at: Mapped[float] = mapped_column(Float)


class EncryptedSumRow(Base):
    """The sum of a round's ciphertexts, as this hub added it; it cannot be read here."""

    __tablename__ = "encrypted_sums"
    study: Mapped[str] = mapped_column(ForeignKey("studies.digest"), primary_key=True)
    round: Mapped[int] = mapped_column(Integer, primary_key=True)
    sum_digest: Mapped[str] = mapped_column(String(71))
    sum_bytes: Mapped[int] = mapped_column(BigInteger)


class GivenWeightsRow(Base):
    """Weights that were brought from outside, that a study may name to start from."""

    __tablename__ = "given_weights"
    digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    manifest_digest: Mapped[str] = mapped_column(String(71))
    weights_bytes: Mapped[int] = mapped_column(BigInteger)
    given_by: Mapped[str] = mapped_column(String(80))
    given_at: Mapped[float] = mapped_column(Float)


class DecisionRow(Base):
    """A clinician's recorded judgement of a version."""

    __tablename__ = "decisions"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    study: Mapped[str] = mapped_column(ForeignKey("studies.digest"))
    version: Mapped[int] = mapped_column(Integer)
    person: Mapped[str] = mapped_column(String(63))
    decision: Mapped[str] = mapped_column(String(20))  # accepted, rejected
    comment: Mapped[str] = mapped_column(Text, default="")
    decided_at: Mapped[float] = mapped_column(Float)
    __table_args__ = (Index("decisions_of_version", "study", "version"),)


class MailRow(Base):
    """A signed message waiting for a site; the agent acknowledges by asking for what comes after it."""

    __tablename__ = "mailbox"
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    site: Mapped[str] = mapped_column(ForeignKey("sites.name"), index=True)
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
    posted_at: Mapped[float] = mapped_column(Float)


class AuditRow(Base):
    """One entry of the append-only log; `hash` is the RFC 6962 leaf hash, `chain` links it to the one before."""

    __tablename__ = "audit"
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    entry: Mapped[bytes] = mapped_column(LargeBinary)  # canonical JSON
    hash: Mapped[str] = mapped_column(String(71))
    chain: Mapped[str] = mapped_column(String(71))
