"""Signed heads of the audit log: size, Merkle root and chain at a moment, which whoever keeps can later check against.

A head that somebody kept proves that the log up to its size was not rewritten since (`verify.py`).
"""

from dataclasses import dataclass
from typing import Any

from hub.audit.log import FIRST_CHAIN, hash_text, raw_hash
from hub.audit.merkle import root_of
from hub.services import Services
from hub.storage import audit_stores
from hub.storage.database import Session
from protocol.digest import canonical_json
from protocol.signing import sign

HEAD_SCHEMA = "wardround.audit-head/1"


@dataclass(frozen=True)
class Head:
    """The log's head: `root` as RFC 6962 defines it, over the first `size` entries."""

    size: int
    root: str
    chain: str
    time: float

    def document(self) -> dict[str, Any]:
        """Return the document that is signed."""
        return {"schema": HEAD_SCHEMA, "size": self.size, "root": self.root, "chain": self.chain, "time": self.time}


def head_of(session: Session, time: float) -> Head:
    """Return the head of the log as it stands."""
    size, chain = audit_stores.head(session)
    leaves = [raw_hash(text) for text in audit_stores.leaf_hashes(session)]
    return Head(size, hash_text(root_of(leaves)), chain or hash_text(FIRST_CHAIN), time)


def signed_head(session: Session, services: Services) -> dict[str, Any]:
    """Return the head with its signed envelope, as the API shows it."""
    head = head_of(session, services.clock())
    envelope = sign(canonical_json(head.document()), services.key)
    return {"size": head.size, "root": head.root, "chain": head.chain, "envelope": envelope.decode()}
