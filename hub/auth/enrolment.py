"""A site's way onto the hub: invited by name with a one-time code, enrolled with its keys, perhaps suspended.

| state     | invite  | enrol    | suspend   | resume   |
|-----------|---------|----------|-----------|----------|
| (none)    | invited |          |           |          |
| invited   | invited | enrolled |           |          |
| enrolled  | enrolled |         | suspended |          |
| suspended |         |          |           | enrolled |

An enrolled site is invited again when the answer to its enrolment was lost: the new code takes only the keys that the
hub knows already. The code is 128 random bits in base32; only its SHA-256 is stored. It needs no slow hash: nobody can
guess it. Pure.
"""

import base64
import hashlib
import hmac
import secrets
from enum import StrEnum

from hub.errors import InvitationError, StateError

INVITATION_SECONDS = 7 * 24 * 3600.0
_CODE_BYTES = 16


class SiteState(StrEnum):
    """States of a site."""

    INVITED = "invited"
    ENROLLED = "enrolled"
    SUSPENDED = "suspended"


class SiteEvent(StrEnum):
    """What may happen to a site."""

    INVITE = "invite"
    ENROL = "enrol"
    SUSPEND = "suspend"
    RESUME = "resume"


_TABLE: dict[tuple[SiteState | None, SiteEvent], SiteState] = {
    (None, SiteEvent.INVITE): SiteState.INVITED,
    (SiteState.INVITED, SiteEvent.INVITE): SiteState.INVITED,
    (SiteState.ENROLLED, SiteEvent.INVITE): SiteState.ENROLLED,
    (SiteState.INVITED, SiteEvent.ENROL): SiteState.ENROLLED,
    (SiteState.ENROLLED, SiteEvent.SUSPEND): SiteState.SUSPENDED,
    (SiteState.SUSPENDED, SiteEvent.RESUME): SiteState.ENROLLED,
}


def next_site_state(state: str | None, event: SiteEvent) -> SiteState:
    """Return the state after an event.

    Raises: StateError if the event is not legal in this state.
    """
    now = None if state is None else SiteState(state)
    try:
        return _TABLE[now, event]
    except KeyError:
        raise StateError(
            f"The site is {state or 'unknown'}; '{event}' is not possible.", "See its state with `wardround hub sites`."
        ) from None


def new_code() -> str:
    """Make an invitation code, in groups that can be read out over the telephone."""
    text = base64.b32encode(secrets.token_bytes(_CODE_BYTES)).decode().rstrip("=")
    return "-".join(text[i : i + 5] for i in range(0, len(text), 5))


def code_hash(code: str) -> str:
    """Return what is stored of a code; case, blanks and dashes do not matter."""
    plain = "".join(character for character in code.upper() if character.isalnum())
    return hashlib.sha256(b"wardround-invitation:" + plain.encode()).hexdigest()


def check_code(code: str, stored_hash: str | None, expires_at: float | None, now: float) -> None:
    """Accept a code or say what is wrong with it.

    Raises: InvitationError. A wrong code and an unknown site get the same sentence.
    """
    if stored_hash is None or not hmac.compare_digest(code_hash(code), stored_hash):
        raise InvitationError(
            "The invitation code does not belong to this site name.",
            "Check both for typing errors, or ask the hub's operator for a new one (`wardround hub invite`).",
        )
    if expires_at is None or now > expires_at:
        raise InvitationError(
            "The invitation has expired.", "Ask the hub's operator for a new one (`wardround hub invite`)."
        )
