"""Queries of wrong sign-ins."""

from collections.abc import Iterable, Mapping

from sqlalchemy import delete, select

from hub.storage.database import Session
from hub.storage.tables import SignInFailureRow


def sign_in_failures(session: Session, counters: Iterable[str]) -> Mapping[str, SignInFailureRow]:
    """Return what is counted under these words."""
    rows = session.scalars(select(SignInFailureRow).where(SignInFailureRow.counter.in_(list(counters)))).all()
    return {row.counter: row for row in rows}


def count_sign_in_failure(session: Session, counter: str, failures: int, now: float) -> None:
    """Note that so many sign-ins failed under a word, the last one now."""
    session.merge(SignInFailureRow(counter=counter, failures=failures, failed_at=now))


def forget_sign_in_failures(session: Session, counters: Iterable[str]) -> None:
    """Forget what is counted under these words."""
    session.execute(delete(SignInFailureRow).where(SignInFailureRow.counter.in_(list(counters))))


def forget_old_sign_in_failures(session: Session, until: float) -> None:
    """Forget everything that failed last at this time or before."""
    session.execute(delete(SignInFailureRow).where(SignInFailureRow.failed_at <= until))
