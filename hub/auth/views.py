"""Sites and people as the API shows them."""

from typing import Any

from hub.auth.enrolment import SiteState
from hub.storage.tables import PersonRow, SiteRow

ONLINE_SECONDS = 60.0


def site_view(row: SiteRow, now: float) -> dict[str, Any]:
    """Return a SiteView; a site is online if it called within the last minute."""
    online = (
        row.state == SiteState.ENROLLED and row.last_seen_at is not None and now - row.last_seen_at < ONLINE_SECONDS
    )
    return {
        "name": row.name,
        "state": row.state,
        "enrolled_at": row.enrolled_at,
        "last_seen_at": row.last_seen_at,
        "online": online,
        "activity": row.activity,
        "fraction": row.activity_fraction,
        "task": row.activity_task,
    }


def person_view(row: PersonRow) -> dict[str, Any]:
    """Return a person without the password's hash."""
    return {"name": row.name, "role": row.role, "created_at": row.created_at, "disabled": row.disabled}
