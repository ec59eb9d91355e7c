"""Who may call what: one table, read by every route of both APIs and shown in docs/site_operations.md.

An administrator runs the site, decides on studies and opens reading rooms; an auditor sees what was spent, what left
and who looked at which case, and changes nothing; a clinician sees which studies there are and reads cases. Pictures
are for clinicians alone.
"""

from typing import Literal, get_args

Role = Literal["administrator", "clinician", "auditor"]
GatePage = Literal["me", "status", "studies", "study", "decide", "tasks", "budget", "egress", "doctor"]
ReadingPage = Literal[
    "reader",
    "index",
    "readiness",
    "examine",
    "rooms",
    "open_room",
    "cases",
    "case",
    "image",
    "read",
    "readings",
    "views",
]
Page = GatePage | ReadingPage
ROLES: tuple[Role, ...] = get_args(Role)
GATE_PAGES: tuple[GatePage, ...] = get_args(GatePage)
READING_PAGES: tuple[ReadingPage, ...] = get_args(ReadingPage)
_EVERYBODY: frozenset[Role] = frozenset(ROLES)
_WHO_RUNS_OR_AUDITS: frozenset[Role] = frozenset({"administrator", "auditor"})
PERMITTED: dict[Page, frozenset[Role]] = {
    "me": _EVERYBODY,
    "status": _EVERYBODY,
    "studies": _EVERYBODY,
    "study": _EVERYBODY,
    "decide": frozenset({"administrator"}),
    "tasks": _WHO_RUNS_OR_AUDITS,
    "budget": _WHO_RUNS_OR_AUDITS,
    "egress": _WHO_RUNS_OR_AUDITS,
    "doctor": frozenset({"administrator"}),
    "reader": _EVERYBODY,
    "index": _WHO_RUNS_OR_AUDITS,
    "readiness": _WHO_RUNS_OR_AUDITS,
    "examine": frozenset({"administrator"}),
    "rooms": _EVERYBODY,
    "open_room": frozenset({"administrator"}),
    "cases": frozenset({"clinician"}),
    "case": frozenset({"clinician"}),
    "image": frozenset({"clinician"}),
    "read": frozenset({"clinician"}),
    "readings": _WHO_RUNS_OR_AUDITS,
    "views": _WHO_RUNS_OR_AUDITS,
}


def may_call(role: Role, page: Page) -> bool:
    """Tell whether a role may call a page. Pure."""
    return role in PERMITTED[page]
