"""Who may do what: one table of roles and permissions. Every route of the API names one permission.

| permission  | site | researcher | clinician | operator | for                                        |
|-------------|------|------------|-----------|----------|--------------------------------------------|
| ANYONE      | yes  | yes        | yes       | yes      | what is public, and what makes one known   |
| TAKE_PART   | yes  |            |           |          | mailbox, messages, uploads                 |
| FETCH_BLOBS | yes  | yes        | yes       | yes      | weights of versions                        |
| READ        |      | yes        | yes       | yes      | studies, rounds, versions, sites, audit    |
| PROPOSE     |      | yes        |           |          | check, propose, start, stop a study        |
| DECIDE      |      |            | yes       |          | record a judgement of a version            |
| ADMINISTER  |      |            |           | yes      | invitations, people                        |
"""

from enum import StrEnum


class Permission(StrEnum):
    """What a route asks for."""

    ANYONE = "anyone"
    TAKE_PART = "take-part"
    FETCH_BLOBS = "fetch-blobs"
    READ = "read"
    PROPOSE = "propose"
    DECIDE = "decide"
    ADMINISTER = "administer"


SITE_ROLE = "site"
_READERS = frozenset({Permission.ANYONE, Permission.FETCH_BLOBS, Permission.READ})
PERMISSIONS: dict[str, frozenset[Permission]] = {
    SITE_ROLE: frozenset({Permission.ANYONE, Permission.FETCH_BLOBS, Permission.TAKE_PART}),
    "researcher": _READERS | {Permission.PROPOSE},
    "clinician": _READERS | {Permission.DECIDE},
    "operator": _READERS | {Permission.ADMINISTER},
}
PERSON_ROLES = tuple(role for role in PERMISSIONS if role != SITE_ROLE)


def permits(role: str, permission: Permission) -> bool:
    """Tell whether a role has a permission; an unknown role has none."""
    return permission in PERMISSIONS.get(role, frozenset())


def roles_with(permission: Permission) -> list[str]:
    """Return the roles that have a permission, for the sentence of a refusal."""
    return [role for role, granted in PERMISSIONS.items() if permission in granted]
