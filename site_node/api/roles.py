"""Who may call what: one table, read by every route and shown in docs/site_operations.md.

An administrator runs the site and decides on studies; an auditor sees what was spent and what left, and changes
nothing; a clinician sees which studies there are and how they stand.
"""

from typing import Literal, get_args

Role = Literal["administrator", "clinician", "auditor"]
Page = Literal["status", "studies", "study", "decide", "tasks", "budget", "egress", "doctor"]
ROLES: tuple[Role, ...] = get_args(Role)
PERMITTED: dict[Page, frozenset[Role]] = {
    "status": frozenset({"administrator", "clinician", "auditor"}),
    "studies": frozenset({"administrator", "clinician", "auditor"}),
    "study": frozenset({"administrator", "clinician", "auditor"}),
    "decide": frozenset({"administrator"}),
    "tasks": frozenset({"administrator", "auditor"}),
    "budget": frozenset({"administrator", "auditor"}),
    "egress": frozenset({"administrator", "auditor"}),
    "doctor": frozenset({"administrator"}),
}


def may_call(role: Role, page: Page) -> bool:
    """Tell whether a role may call a page. Pure."""
    return role in PERMITTED[page]
