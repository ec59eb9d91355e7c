"""One secret key for a round, to which every site of the round contributes: none of them makes it alone.

Each member of the round's roster draws a contribution by chance and seals it for every other member, by the channels of
`protocol/secure_aggregation/key_agreement.py`: X25519 keys signed with identity keys that the sites have pinned, so
that the hub, which carries the sealed contributions, can read none and stand between no two. Whoever holds all of them
derives the key. The roster and the names enter the derivation: sites that were shown other members hold another key,
their ciphertexts name it (`key_id`), and the round is not opened.
Source: RFC 5869 (HKDF).
"""

import secrets
from collections.abc import Mapping

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol.digest import canonical_json
from protocol.errors import EncryptionError
from protocol.homomorphic.scheme import SECRET_BYTES, KeySecret

CONTRIBUTION_BYTES = 66
"""More than any key needs; as many bytes as a sealed message of the round carries."""
FEWEST_MEMBERS = 4


def new_contribution() -> bytes:
    """Draw this site's part of a round's key from the system's entropy."""
    return secrets.token_bytes(CONTRIBUTION_BYTES)


def shared_secret(study_digest: str, number: int, roster_digest: str, contributions: Mapping[str, bytes]) -> KeySecret:
    """Derive a round's key from the contributions of all its members, by name.

    Guarantee: as long as one member's contribution is unknown to somebody, the key is; the same members, round and
        roster give the same key at every site.
    Raises: EncryptionError if there are fewer than four members, or a contribution has another length.
    """
    if len(contributions) < FEWEST_MEMBERS or any(len(part) != CONTRIBUTION_BYTES for part in contributions.values()):
        raise EncryptionError(f"A round's key needs {FEWEST_MEMBERS} contributions of {CONTRIBUTION_BYTES} bytes each.")
    names = sorted(contributions)
    context = {
        "schema": "wardround.encryption-key/1",
        "study": study_digest,
        "round": number,
        "roster": roster_digest,
        "members": names,
    }
    joined = b"".join(contributions[name] for name in names)
    return KeySecret(HKDF(SHA256(), SECRET_BYTES, salt=None, info=canonical_json(context)).derive(joined))
