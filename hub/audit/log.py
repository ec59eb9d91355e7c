"""Append an entry to the audit log: append-only, numbered from 1, each entry linked to all before it.

An entry is canonical JSON, kept as the bytes that were hashed. Its `hash` is the RFC 6962 leaf hash from the start, so
that a Merkle tree can be built over the log at any time; its `chain` is SHA-256 of the chain before it and its hash.
An entry is written in the same transaction as the change that it reports; heartbeats are not audited.
Never in an entry: patient data, tensors, passwords, codes, tokens.
"""

import hashlib
from typing import Any

from hub.audit.merkle import Hash, leaf_hash
from hub.storage import audit_stores
from hub.storage.database import Session
from protocol.digest import canonical_json

ENTRY_SCHEMA = "wardround.audit-entry/1"
FIRST_CHAIN: Hash = bytes(32)
_HEAD = "wardround_audit_head"


def append(session: Session, time: float, actor: str, action: str, subject: str, details: dict[str, Any]) -> int:
    """Append one entry and return its number.

    `actor` is "person:<name>", "site:<name>" or "hub"; `action` a dotted word such as "study.proposed"; `subject` what
    it was done to (a digest, a name, a task id); `time` is the hub's clock in seconds.
    Guarantee: numbers have no gap, also under concurrent writers: writing transactions come one after the other.
    """
    number, chain = session.info[_HEAD] if _HEAD in session.info else audit_stores.head(session)
    entry = canonical_json(
        {
            "schema": ENTRY_SCHEMA,
            "number": number + 1,
            "time": time,
            "actor": actor,
            "action": action,
            "subject": subject,
            "details": details,
        }
    )
    leaf = leaf_hash(entry)
    previous = FIRST_CHAIN if chain is None else raw_hash(chain)
    head = hash_text(chain_hash(previous, leaf))
    audit_stores.add_entry(session, number + 1, entry, hash_text(leaf), head)
    # A transaction is the only writer while it lasts, so that the head it left is the head.
    session.info[_HEAD] = number + 1, head
    return number + 1


def chain_hash(previous: Hash, leaf: Hash) -> Hash:
    """Return the chain value after a leaf."""
    return hashlib.sha256(previous + leaf).digest()


def hash_text(value: Hash) -> str:
    """Write a hash as it is stored and shown."""
    return "sha256:" + value.hex()


def raw_hash(text: str) -> Hash:
    """Return the 32 bytes of a written hash."""
    return bytes.fromhex(text.removeprefix("sha256:"))
