"""Tokens of the site's own API: one for each person, shown once, kept as a digest.

A token is 256 random bits, so a plain SHA-256 of it suffices: there is nothing to guess (unlike a password). It ends by
itself, and can be revoked. Its person's name is what a decision made with it is signed under.

The reading API is shown a second token, made from the first by a keyed hash (`reading_token`): its process opens
images, and must not learn what lets somebody decide.
"""

import hashlib
import hmac
import re
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from site_node.api.roles import ROLES, Role
from site_node.errors import SettingsError
from site_node.settings import SitePaths
from site_node.sqlite import connection, transaction

PREFIX, READING_PREFIX = "wrs_", "wrr_"
FOR_READING = b"wardround.site-reading-token/1"
DAY_SECONDS = 86400.0
MAX_DAYS = 366
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
    digest TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, made_at REAL NOT NULL, ends_at REAL NOT NULL,
    revoked_at REAL, reading_digest TEXT NOT NULL DEFAULT '');
"""


@dataclass(frozen=True)
class Caller:
    """Whose token it is."""

    name: str
    role: Role
    ends_at: float = 0.0


@contextmanager
def open_tokens(paths: SitePaths) -> Iterator[sqlite3.Connection]:
    """Open the tokens, which lie beside the gate's records: who may decide here is the gate's to know."""
    with connection(paths.gate / "api_tokens.sqlite", SCHEMA) as database:
        _with_reading_digests(database)
        yield database


def add_token(database: sqlite3.Connection, name: str, role: str, days: int, now: float) -> str:
    """Make a person's token and return it: it is kept nowhere and cannot be shown again.

    Raises: SettingsError for a name or role that is none, or a person who has a token already.
    """
    if role not in ROLES or not NAME.fullmatch(name) or not 1 <= days <= MAX_DAYS:
        raise SettingsError(
            "A token needs a name (lower-case letters, digits, . _ -), a role and 1 to 366 days.",
            f"The roles are {', '.join(ROLES)}.",
        )
    token = PREFIX + secrets.token_urlsafe(32)
    with transaction(database):
        if any(row["name"] == name for row in live_tokens(database, now)):
            raise SettingsError(f"{name} has a token already.", "Revoke it first: `wardround site tokens revoke`.")
        database.execute(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, NULL, ?)",
            (_digest(token), name, role, now, now + days * DAY_SECONDS, _digest(reading_token(token))),
        )
    return token


def revoke_token(database: sqlite3.Connection, name: str, now: float) -> int:
    """Revoke a person's tokens; return how many were live."""
    with transaction(database):
        changed = database.execute(
            "UPDATE tokens SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL AND ends_at > ?", (now, name, now)
        )
    return int(changed.rowcount)


def live_tokens(database: sqlite3.Connection, now: float) -> list[sqlite3.Row]:
    """Return the tokens that count now: name, role, ends_at, the reading token's digest; never the token."""
    rows = database.execute(
        "SELECT name, role, made_at, ends_at, reading_digest FROM tokens WHERE revoked_at IS NULL AND ends_at > ?"
        " ORDER BY name",
        (now,),
    )
    return rows.fetchall()


def caller_of(database: sqlite3.Connection, token: str, now: float) -> Caller | None:
    """Return whose token this is, or None if it never was, has ended or was revoked."""
    row = database.execute(
        "SELECT name, role, ends_at FROM tokens WHERE digest = ? AND revoked_at IS NULL AND ends_at > ?",
        (_digest(token), now),
    ).fetchone()
    return None if row is None else Caller(row["name"], row["role"], row["ends_at"])


def reading_token(token: str) -> str:
    """Return what a person's token is to the reading API; it does not lead back. Pure.

    >>> reading_token("wrs_example")[:12]
    'wrr_26aca5f1'
    """
    return READING_PREFIX + hmac.digest(token.encode(), FOR_READING, hashlib.sha256).hex()


def _with_reading_digests(database: sqlite3.Connection) -> None:
    """Add the column that older releases lack; their tokens open the site's API alone until they are made anew."""
    columns = {row["name"] for row in database.execute("PRAGMA table_info(tokens)")}
    if "reading_digest" not in columns:
        database.execute("ALTER TABLE tokens ADD COLUMN reading_digest TEXT NOT NULL DEFAULT ''")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
