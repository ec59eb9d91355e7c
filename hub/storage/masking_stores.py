"""Queries of masked rounds and of the sites' messages in them."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.sql.elements import ColumnElement

from hub.storage.database import Session
from hub.storage.tables import EncryptedSumRow, MaskingMessageRow, MaskingRoundRow, PooledEvaluationRow


def masking_round(session: Session, study: str, number: int, task_kind: str = "train") -> MaskingRoundRow | None:
    """Return the masks of a round's tasks of one kind, or None."""
    return session.get(MaskingRoundRow, (study, number, task_kind))


def masking_message(session: Session, masked: MaskingRoundRow, site: str, kind: str) -> MaskingMessageRow | None:
    """Return what a site said in a phase, or None."""
    return session.get(MaskingMessageRow, (masked.study, masked.round, masked.task_kind, site, kind))


def masking_messages(session: Session, masked: MaskingRoundRow, kind: str) -> Sequence[MaskingMessageRow]:
    """Return what the sites said in a phase, by the site's name."""
    return session.scalars(
        select(MaskingMessageRow).where(*_said_in(masked, kind)).order_by(MaskingMessageRow.site)
    ).all()


def who_has_spoken(session: Session, masked: MaskingRoundRow, kind: str) -> set[str]:
    """Return the sites that have spoken in a phase, without reading what they said."""
    return set(session.scalars(select(MaskingMessageRow.site).where(*_said_in(masked, kind))))


def masked_judgings(session: Session, phase: str) -> Sequence[MaskingRoundRow]:
    """Return the masks of held-out counts that are in a phase, of all studies."""
    return session.scalars(
        select(MaskingRoundRow)
        .where(MaskingRoundRow.task_kind == "evaluate", MaskingRoundRow.phase == phase)
        .order_by(MaskingRoundRow.study, MaskingRoundRow.round)
    ).all()


def pooled_evaluations(session: Session, study: str) -> Sequence[PooledEvaluationRow]:
    """Return the opened sums of a study's held-out counts, by version."""
    return session.scalars(
        select(PooledEvaluationRow).where(PooledEvaluationRow.study == study).order_by(PooledEvaluationRow.version)
    ).all()


def pooled_evaluation(session: Session, study: str, version: int) -> PooledEvaluationRow | None:
    """Return the opened sum of the held-out counts on a version, or None."""
    return session.get(PooledEvaluationRow, (study, version))


def encrypted_sum(session: Session, study: str, number: int) -> EncryptedSumRow | None:
    """Return the sum of a round's ciphertexts, or None if they were not added yet."""
    return session.get(EncryptedSumRow, (study, number))


def _said_in(masked: MaskingRoundRow, kind: str) -> tuple[ColumnElement[bool], ...]:
    return (
        MaskingMessageRow.study == masked.study,
        MaskingMessageRow.round == masked.round,
        MaskingMessageRow.task_kind == masked.task_kind,
        MaskingMessageRow.kind == kind,
    )
