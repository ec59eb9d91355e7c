"""Queries of the sites' privacy ledgers, as far as their charges tell them."""

from collections.abc import Collection, Sequence

from sqlalchemy import select

from hub.storage.database import Session
from hub.storage.tables import LedgerChargeRow, LedgerHeadRow


def head(session: Session, site: str) -> LedgerHeadRow | None:
    """Return the last countersigned head of a site's ledger, or None before its first charge."""
    return session.get(LedgerHeadRow, site)


def heads(session: Session, sites: Collection[str]) -> dict[str, LedgerHeadRow]:
    """Return the last countersigned heads of several sites' ledgers, by site; none for a site without a charge."""
    found = select(LedgerHeadRow).where(LedgerHeadRow.site.in_(sites))
    return {row.site: row for row in session.scalars(found)}


def set_head(session: Session, site: str, number: int, chain: str) -> None:
    """Move a site's countersigned head."""
    row = head(session, site)
    if row is None:
        session.add(LedgerHeadRow(site=site, number=number, chain=chain))
    else:
        row.number, row.chain = number, chain
    session.flush()


def charge(session: Session, site: str, chain: str) -> LedgerChargeRow | None:
    """Return the charge that led to this chain, or None."""
    return session.get(LedgerChargeRow, (site, chain))


def charge_after(session: Session, site: str, chain: str) -> LedgerChargeRow | None:
    """Return the charge that says it follows this chain, or None."""
    query = select(LedgerChargeRow).where(LedgerChargeRow.site == site, LedgerChargeRow.follows == chain)
    return session.scalars(query).first()


def charges_of_site(session: Session, site: str) -> Sequence[LedgerChargeRow]:
    """Return all charges of a site, as they were received."""
    query = select(LedgerChargeRow).where(LedgerChargeRow.site == site)
    return session.scalars(query.order_by(LedgerChargeRow.received_at, LedgerChargeRow.number)).all()


def charges_of_study(session: Session, site: str, study: str) -> Sequence[LedgerChargeRow]:
    """Return a site's charges for a study: one, or more after a gap was reconciled."""
    query = select(LedgerChargeRow).where(LedgerChargeRow.site == site, LedgerChargeRow.study == study)
    return session.scalars(query.order_by(LedgerChargeRow.received_at, LedgerChargeRow.number)).all()
