"""An audit entry as the API shows it."""

from typing import Any

from hub.storage.tables import AuditRow
from protocol.digest import parse_json


def entry_view(row: AuditRow) -> dict[str, Any]:
    """Return an entry with its hash and chain."""
    entry = parse_json(row.entry)
    shown = {key: entry[key] for key in ("number", "time", "actor", "action", "subject", "details")}
    return {**shown, "hash": row.hash, "chain": row.chain}
