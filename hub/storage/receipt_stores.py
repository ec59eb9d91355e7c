"""Queries on the receipts that came with updates, without the updates' own bytes. No rule is decided here."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select

from hub.storage.database import Session
from hub.storage.tables import UpdateRow


class KeptReceipt(NamedTuple):
    """A receipt as it was kept, JSON, with the task whose update it came with."""

    task_id: str
    site: str
    round: int
    receipt: str


def receipts_of_study(session: Session, study: str) -> Sequence[KeptReceipt]:
    """Return the receipts of a study's accepted updates, by round."""
    rows = session.execute(
        select(UpdateRow.task_id, UpdateRow.site, UpdateRow.round, UpdateRow.receipt)
        .where(UpdateRow.study == study, UpdateRow.receipt.is_not(None))
        .order_by(UpdateRow.round, UpdateRow.site)
    )
    return [KeptReceipt(*row[:3], row.receipt or "") for row in rows]
