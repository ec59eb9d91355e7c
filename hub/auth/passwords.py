"""Passwords of local accounts, kept as argon2id hashes (RFC 9106)."""

import threading
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from hub.errors import RequestError

SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 256
CHECKS_AT_ONCE = 4
_hasher = PasswordHasher()
# A check takes 64 MiB on purpose; a flood of sign-ins must not take it hundreds of times.
_turn = threading.BoundedSemaphore(CHECKS_AT_ONCE)


def hash_password(password: str) -> str:
    """Return the hash that is stored.

    Raises: RequestError if the password is too short or too long.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise RequestError(
            f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters.", "Choose one of that length."
        )
    return _hasher.hash(password)


def password_matches(stored: str | None, password: str) -> bool:
    """Tell whether a password is the stored one.

    Guarantee: takes as long for a name that does not exist (stored is None), so that names cannot be probed by time.
    """
    try:
        with _turn:
            matches = _hasher.verify(stored or _nobody(), password[: LONGEST_PASSWORD + 1])
    except (VerificationError, InvalidHashError):
        return False
    return matches and stored is not None


@lru_cache(maxsize=1)
def _nobody() -> str:
    return _hasher.hash("nobody has this password")
