"""Queries of masked rounds and of the sites' messages in them."""

from collections.abc import Sequence

from sqlalchemy import select

from hub.storage.database import Session
from hub.storage.tables import EncryptedSumRow, MaskingMessageRow, MaskingRoundRow


def masking_round(session: Session, study: str, number: int) -> MaskingRoundRow | None:
    """Return a masked round, or None."""
    return session.get(MaskingRoundRow, (study, number))


def masking_message(session: Session, study: str, number: int, site: str, kind: str) -> MaskingMessageRow | None:
    """Return what a site said in a phase, or None."""
    return session.get(MaskingMessageRow, (study, number, site, kind))


def masking_messages(session: Session, study: str, number: int, kind: str) -> Sequence[MaskingMessageRow]:
    """Return what the sites said in a phase, by the site's name."""
    return session.scalars(
        select(MaskingMessageRow)
        .where(MaskingMessageRow.study == study, MaskingMessageRow.round == number, MaskingMessageRow.kind == kind)
        .order_by(MaskingMessageRow.site)
    ).all()


def encrypted_sum(session: Session, study: str, number: int) -> EncryptedSumRow | None:
    """Return the sum of a round's ciphertexts, or None if they were not added yet."""
    return session.get(EncryptedSumRow, (study, number))


def who_has_spoken(session: Session, study: str, number: int, kind: str) -> set[str]:
    """Return the sites that have spoken in a phase, without reading what they said."""
    found = session.scalars(
        select(MaskingMessageRow.site).where(
            MaskingMessageRow.study == study, MaskingMessageRow.round == number, MaskingMessageRow.kind == kind
        )
    )
    return set(found)
