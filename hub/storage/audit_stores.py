"""Queries of the audit log."""

from collections.abc import Iterator, Sequence

from sqlalchemy import LargeBinary, cast, select

from hub.storage.database import Session
from hub.storage.tables import AuditRow


def head(session: Session) -> tuple[int, str | None]:
    """Return the last entry's number (0: the log is empty) and its chain value."""
    row = session.execute(select(AuditRow.number, AuditRow.chain).order_by(AuditRow.number.desc()).limit(1)).first()
    return (0, None) if row is None else (row.number, row.chain)


def add_entry(session: Session, number: int, entry: bytes, entry_hash: str, chain: str) -> None:
    """Append a row; written by the next flush, with all that was added till then."""
    session.add(AuditRow(number=number, entry=entry, hash=entry_hash, chain=chain))


def entries(session: Session, after: int, limit: int) -> Sequence[AuditRow]:
    """Return the entries after a number, oldest first."""
    return session.scalars(select(AuditRow).where(AuditRow.number > after).order_by(AuditRow.number).limit(limit)).all()


def stream(session: Session) -> Iterator[tuple[int, bytes, str, str]]:
    """Yield (number, entry, hash, chain) of all entries in order, without holding them all."""
    rows = session.execute(
        # Cast, because a forger may have changed the type of a SQLite value; whatever is there is checked as bytes.
        select(AuditRow.number, cast(AuditRow.entry, LargeBinary), AuditRow.hash, AuditRow.chain).order_by(
            AuditRow.number
        ),
        execution_options={"yield_per": 1000},
    )
    yield from rows


def leaf_hashes(session: Session) -> Sequence[str]:
    """Return all leaf hashes in order."""
    return session.scalars(select(AuditRow.hash).order_by(AuditRow.number)).all()
