"""X25519 between two sites, HKDF over everything that the key is for, and shares sealed with the result.

A key is of one study, round, roster, purpose and pair of names: nothing agreed for one can be used for another. A
sealed message is encrypted under a key of its direction, and bound to the roster and both names.
Source: RFC 7748 (X25519), RFC 5869 (HKDF), RFC 8439 (ChaCha20-Poly1305).
"""

import hashlib
import os
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol.digest import canonical_json
from protocol.errors import MaskingError
from protocol.secure_aggregation.roster import Roster

KEY_BYTES = 32
NONCE_BYTES = 12
COMMITMENT_LABEL = b"wardround.masking-seed/1"

Purpose = Literal["channel", "mask", "own-mask"]


def new_private_key() -> bytes:
    """Return a fresh X25519 private key."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_key_of(private: bytes) -> bytes:
    """Return the public half."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def is_usable(public: str) -> bool:
    """Tell whether a public key leads to a secret at all; one of small order leads everybody to the same."""
    try:
        _shared(new_private_key(), public)
    except MaskingError:
        return False
    return True


def commitment_to(seed: bytes) -> str:
    """Return the commitment to a seed of 32 random bytes, in hexadecimal; it lets the hub check what shares give."""
    return hashlib.sha256(COMMITMENT_LABEL + seed).hexdigest()


def mask_key(private: bytes, roster: Roster, own: str, peer: str) -> bytes:
    """Return the key of the mask between two members: the same from either side.

    Raises: MaskingError if the peer's public key is not usable.
    """
    shared = _shared(private, roster.keys[peer].mask_key)
    return _derived(shared, roster, "mask", sorted((own, peer)))


def own_mask_key(seed: bytes, roster: Roster, own: str) -> bytes:
    """Return the key of a member's own mask."""
    return _derived(seed, roster, "own-mask", [own])


def seal(private: bytes, roster: Roster, own: str, peer: str, content: bytes) -> bytes:
    """Encrypt content from one member for another; only the two can read it, and only they can have written it."""
    nonce = os.urandom(NONCE_BYTES)
    key = _channel(private, roster, roster.keys[peer].channel_key, own, peer)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, content, _bound_to(roster, own, peer))


def unseal(private: bytes, roster: Roster, own: str, sender: str, sealed: bytes) -> bytes:
    """Decrypt what a member sealed for us.

    Raises: MaskingError if it was sealed by or for somebody else, in another round, or was changed.
    """
    key = _channel(private, roster, roster.keys[sender].channel_key, sender, own)
    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound_to(roster, sender, own))
    except InvalidTag:
        raise MaskingError(f"What {sender} sealed cannot be opened: it is not its own, or was changed.") from None


def _channel(private: bytes, roster: Roster, peer_key: str, sender: str, receiver: str) -> bytes:
    return _derived(_shared(private, peer_key), roster, "channel", [sender, receiver])


def _shared(private: bytes, public: str) -> bytes:
    try:
        peer = X25519PublicKey.from_public_bytes(bytes.fromhex(public))
        return X25519PrivateKey.from_private_bytes(private).exchange(peer)
    except ValueError as error:  # a point of small order gives a shared secret that everybody knows
        raise MaskingError("A member's public key is not usable.") from error


def _derived(secret: bytes, roster: Roster, purpose: Purpose, names: list[str]) -> bytes:
    context = {
        "schema": "wardround.masking-key/1",
        "purpose": purpose,
        "study": roster.study_digest,
        "round": roster.round,
        "roster": roster.digest,
        "names": names,
    }
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=canonical_json(context)).derive(secret)


def _bound_to(roster: Roster, sender: str, receiver: str) -> bytes:
    return canonical_json({"roster": roster.digest, "from": sender, "to": receiver})
