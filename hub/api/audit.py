"""The audit log: read it, verify it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from hub.api.dependencies import Reader, ServicesOf
from hub.audit.checkpoint import signed_head
from hub.audit.verify import verify_entries
from hub.audit.views import entry_view
from hub.storage import audit_stores

router = APIRouter(prefix="/v1/audit", tags=["audit"])
MOST_ENTRIES = 1000


@router.get("")
def list_entries(
    caller: Reader,
    services: ServicesOf,
    after: Annotated[int, Query(ge=0, lt=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_ENTRIES)] = 200,
) -> dict[str, Any]:
    """Return entries after a number, oldest first, and the signed head of the whole log."""
    with services.reading() as session:
        rows = audit_stores.entries(session, after, limit)
        return {"entries": [entry_view(row) for row in rows], "head": signed_head(session, services)}


@router.get("/verify")
def verify(caller: Reader, services: ServicesOf) -> dict[str, Any]:
    """Check the whole log, entry by entry."""
    with services.reading() as session:
        verdict = verify_entries(audit_stores.stream(session))
    return {"ok": verdict.ok, "entries": verdict.entries, "head": verdict.head, "problem": verdict.problem}
