"""Where a version comes from: study, round, parents, participants with the digests of their updates, privacy spent.

The document is canonical JSON in an envelope signed by the hub, so that it can be checked without the hub. Pure.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from protocol.digest import canonical_json, parse_json
from protocol.signing import SigningKey, read_unverified, sign

LINEAGE_SCHEMA = "wardround.lineage/1"


@dataclass(frozen=True)
class LineageParticipant:
    """A site whose update counted once in a version; `staleness` is how many versions old its base was.

    `used` is what its receipt said: of how many patients it was made, noised, and whether these were a fraction.
    """

    site: str
    weight: float
    update_digest: str
    task_digest: str
    staleness: int = 0
    used: Mapping[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """Return what the lineage says of it; of an update without a receipt no word of one."""
        fields = asdict(self)
        return fields if self.used is not None else {name: value for name, value in fields.items() if name != "used"}


@dataclass(frozen=True)
class Lineage:
    """What is known about a version's origin; `epsilon` is the largest that a site has accounted for so far."""

    study_digest: str
    number: int
    round: int
    weights_digest: str
    weights_bytes: int
    manifest_digest: str
    parents: tuple[str, ...]
    participants: tuple[LineageParticipant, ...]
    epsilon: float | None
    delta: float | None
    server_state: dict[str, Any] | None
    created_at: float

    def document(self) -> dict[str, Any]:
        """Return the document that is signed."""
        fields = asdict(self)
        epsilon, delta = fields.pop("epsilon"), fields.pop("delta")
        fields["parents"] = list(self.parents)
        fields["participants"] = [participant.document() for participant in self.participants]
        privacy = None if epsilon is None else {"unit": "patient", "epsilon": epsilon, "delta": delta}
        return {"schema": LINEAGE_SCHEMA, **fields, "privacy": privacy}


def sign_lineage(lineage: Lineage, key: SigningKey) -> bytes:
    """Return the signed envelope of a lineage."""
    return sign(canonical_json(lineage.document()), key)


def read_lineage(envelope: bytes) -> dict[str, Any]:
    """Return the document in an envelope of the hub's own store; the signature is not checked again."""
    document: dict[str, Any] = parse_json(read_unverified(envelope))
    return document
