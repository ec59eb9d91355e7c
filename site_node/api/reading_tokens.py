"""How the gate's side tells the reading API who may call it: a file beside the work orders, and no token in it.

    SITE/orders/readers.list     gate to worker: digest, person, role and end of each reading token

A person has one token. What the reading API is shown is not that token but one made from it in one direction, so that
whoever takes over the process that opens images cannot decide on studies with what people send it.
"""

import hashlib
import json
import sqlite3
from typing import Any

from site_node.api.roles import ROLES
from site_node.api.tokens import Caller, live_tokens
from site_node.durable import read_up_to, write_durably
from site_node.errors import SettingsError
from site_node.settings import SitePaths

FILE_NAME = "readers.list"
MAX_FILE_BYTES = 1 << 20


def publish_readers(paths: SitePaths, tokens: sqlite3.Connection, now: float) -> None:
    """Write who may call the reading API from now on."""
    readers = [
        {"digest": row["reading_digest"], "name": row["name"], "role": row["role"], "ends_at": row["ends_at"]}
        for row in live_tokens(tokens, now)
    ]
    write_durably(paths.orders / FILE_NAME, json.dumps(readers, indent=1).encode())


def reader_of(paths: SitePaths, token: str, now: float) -> Caller | None:
    """Return whose reading token this is, or None if it counts for nobody.

    Raises: SettingsError if the list is damaged.
    """
    digest = hashlib.sha256(token.encode()).hexdigest()
    for reader in _readers(paths):
        if reader["digest"] == digest and reader["ends_at"] > now and reader["role"] in ROLES:
            return Caller(reader["name"], reader["role"], reader["ends_at"])
    return None


def _readers(paths: SitePaths) -> list[dict[str, Any]]:
    data = read_up_to(paths.orders / FILE_NAME, MAX_FILE_BYTES)
    try:
        found = json.loads(data or b"[]")
        return [{name: entry[name] for name in ("digest", "name", "role", "ends_at")} for entry in found]
    except (ValueError, TypeError, KeyError):
        raise SettingsError(
            "The list of who may read is damaged.", "Make a token, or revoke one: it is then written again."
        ) from None
