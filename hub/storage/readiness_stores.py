"""Queries of what sites told of their readiness."""

from collections.abc import Sequence

from sqlalchemy import select

from hub.storage.database import Session
from hub.storage.tables import ReadinessRow


def find_readiness(session: Session, study: str, site: str, number: int) -> ReadinessRow | None:
    """Return a site's report of this number, or None."""
    return session.get(ReadinessRow, (study, site, number))


def readiness_of(session: Session, study: str) -> Sequence[ReadinessRow]:
    """Return all that was told of a study, a site's reports oldest first."""
    found = select(ReadinessRow).where(ReadinessRow.study == study)
    return session.scalars(found.order_by(ReadinessRow.site, ReadinessRow.number)).all()
