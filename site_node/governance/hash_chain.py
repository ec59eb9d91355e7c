"""Append-only tables whose entries are linked by hashes: the privacy ledger and the egress ledger.

An entry is canonical JSON; `hash` is its RFC 6962 leaf hash, `chain` the SHA-256 of the chain before it and the hash.
Changing, removing or reordering an old entry breaks every later link; cutting off the end does not, which is why heads
are kept elsewhere too. Triggers refuse UPDATE and DELETE, so that no statement of ours can rewrite history by mistake.
Source: RFC 6962, section 2.1 (leaf hash).
"""

import hashlib
import sqlite3
from typing import Any, Literal

from protocol.digest import canonical_json, parse_json
from protocol.errors import DigestError
from site_node.errors import GateError

Table = Literal["ledger", "egress"]
EMPTY_HEAD = "sha256:" + hashlib.sha256(b"").hexdigest()


def chain_schema(table: Table) -> str:
    """Return the statements that make such a table."""
    return f"""
    CREATE TABLE IF NOT EXISTS {table} (
        number INTEGER PRIMARY KEY, entry BLOB NOT NULL, hash TEXT NOT NULL, chain TEXT NOT NULL);
    CREATE TRIGGER IF NOT EXISTS {table}_keeps BEFORE UPDATE ON {table} BEGIN SELECT RAISE(ABORT, 'append only'); END;
    CREATE TRIGGER IF NOT EXISTS {table}_stays BEFORE DELETE ON {table} BEGIN SELECT RAISE(ABORT, 'append only'); END;
    """


def append(database: sqlite3.Connection, table: Table, fields: dict[str, Any]) -> int:
    """Append an entry and return its number. Call within an immediate transaction."""
    last, chain = head(database, table)
    number = last + 1
    entry = canonical_json({"number": number, **fields})
    leaf = _leaf_hash(entry)
    database.execute(
        f"INSERT INTO {table} (number, entry, hash, chain) VALUES (?, ?, ?, ?)",  # noqa: S608 - one of two names
        (number, entry, leaf, _link(chain, leaf)),
    )
    return number


def head(database: sqlite3.Connection, table: Table) -> tuple[int, str]:
    """Return the number and chain hash of the last entry; 0 and a constant for an empty table."""
    row = database.execute(f"SELECT number, chain FROM {table} ORDER BY number DESC LIMIT 1").fetchone()  # noqa: S608
    return (0, EMPTY_HEAD) if row is None else (row["number"], row["chain"])


def entries(database: sqlite3.Connection, table: Table, after: int = 0) -> list[dict[str, Any]]:
    """Return the entries after a number, oldest first."""
    rows = database.execute(f"SELECT entry FROM {table} WHERE number > ? ORDER BY number", (after,))  # noqa: S608
    return [parse_json(row["entry"]) for row in rows]


def verify(database: sqlite3.Connection, table: Table) -> tuple[int, str]:
    """Recompute every link and return the head.

    Raises: GateError naming the first entry that was changed, removed or reordered.
    """
    expected, chain = 1, EMPTY_HEAD
    for row in database.execute(f"SELECT number, entry, hash, chain FROM {table} ORDER BY number"):  # noqa: S608
        leaf = _leaf_hash(row["entry"] if isinstance(row["entry"], bytes) else b"")
        chain = _link(chain, leaf)
        if (row["number"], row["hash"], row["chain"]) != (expected, leaf, chain) or _number_in(
            row["entry"]
        ) != expected:
            raise GateError(
                f"Entry {expected} of the {table} table was changed, removed or moved.",
                "Stop the gate, keep a copy of the database and restore the last backup; tell the hub's operator.",
            )
        expected += 1
    return expected - 1, chain


def _number_in(entry: object) -> int:
    try:
        return int(parse_json(entry)["number"]) if isinstance(entry, bytes) else -1
    except (DigestError, KeyError, TypeError, ValueError):
        return -1


def _leaf_hash(entry: bytes) -> str:
    return "sha256:" + hashlib.sha256(b"\x00" + entry).hexdigest()


def _link(chain: str, leaf: str) -> str:
    return "sha256:" + hashlib.sha256(bytes.fromhex(chain[7:]) + bytes.fromhex(leaf[7:])).hexdigest()
