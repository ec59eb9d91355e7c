"""Register a version and record judgements of it: load, apply the rule, save, audit: one transaction."""

from typing import Any

from hub.audit.log import append
from hub.errors import NotFoundError, RequestError
from hub.registry.lineage import Lineage, LineageParticipant, sign_lineage
from hub.registry.versions import DECISIONS, MAX_COMMENT_CHARACTERS
from hub.services import Services
from hub.storage import stores
from hub.storage.database import Session
from hub.storage.tables import DecisionRow, StudyRow, VersionRow
from protocol.digest import digest_of
from protocol.signing import SigningKey


def register_version(
    session: Session,
    services: Services,
    *,
    study: StudyRow,
    round: int,  # noqa: A002 - the field's word
    weights_digest: str,
    weights_bytes: int,
    manifest_digest: str,
    parents: list[str],
    participants: list[LineageParticipant],
    epsilon: float | None,
    delta: float | None,
    server_state: dict[str, Any] | None = None,
) -> VersionRow:
    """Add a version with its signed lineage, in the caller's transaction. Its number is its round's.

    Raises: NotFoundError if its weights are not in the blob store.
    """
    if not services.blobs.contains(weights_digest):
        raise NotFoundError("The version's weights are not in the blob store.", "Store them first.")
    lineage = Lineage(
        study_digest=study.digest,
        number=round,
        round=round,
        weights_digest=weights_digest,
        weights_bytes=weights_bytes,
        manifest_digest=manifest_digest,
        parents=tuple(parents),
        participants=tuple(participants),
        epsilon=epsilon,
        delta=delta,
        server_state=server_state,
        created_at=services.clock(),
    )
    session.add(row := _row_of(lineage, services.key))
    session.flush()
    details = {key: value for key, value in lineage.document().items() if key not in ("schema", "server_state")}
    append(session, services.clock(), "hub", "version.registered", weights_digest, details)
    return row


def _row_of(lineage: Lineage, key: SigningKey) -> VersionRow:
    return VersionRow(
        study=lineage.study_digest,
        number=lineage.number,
        weights_digest=lineage.weights_digest,
        weights_bytes=lineage.weights_bytes,
        manifest_digest=lineage.manifest_digest,
        lineage=sign_lineage(lineage, key),
        created_at=lineage.created_at,
    )


def comment_digest(row: DecisionRow) -> str:
    """Return what the audit log keeps of a judgement's comment, which is free text and stays out of it."""
    judged = {"person": row.person, "study": row.study, "version": row.version, "decision": row.decision}
    return digest_of({**judged, "comment": row.comment, "decided_at": row.decided_at})


def record_decision(services: Services, digest: str, number: int, person: str, decision: str, comment: str) -> None:
    """Record a clinician's judgement of a version. Judgements are added, never changed.

    Raises: NotFoundError if there is no such version, RequestError for an unknown decision, too long a comment
        or a rejection without one.
    """
    if decision not in DECISIONS:
        raise RequestError(f"{decision[:40]!r} is not a decision.", f"Use one of {', '.join(DECISIONS)}.")
    if len(comment) > MAX_COMMENT_CHARACTERS:
        raise RequestError(f"A comment has at most {MAX_COMMENT_CHARACTERS} characters.", "Shorten it.")
    if decision == "rejected" and not comment.strip():
        raise RequestError("A rejection needs a comment.", "Say what is wrong with the version, and send it again.")
    with services.transaction() as session:
        version = stores.version(session, digest, number)
        row = DecisionRow(
            study=digest,
            version=number,
            person=person,
            decision=decision,
            comment=comment,
            decided_at=services.clock(),
        )
        session.add(row)
        details = {"study": digest, "version": number, "decision": decision, "comment_digest": comment_digest(row)}
        append(session, services.clock(), f"person:{person}", "version.judged", version.weights_digest, details)
