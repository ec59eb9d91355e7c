"""Ed25519 signatures of messages, in DSSE envelopes.

What is signed is the payload type and the very bytes of the message, so that nothing is ever re-serialised to check a
signature. An envelope is JSON: `{"payload": base64, "payloadType": ..., "signatures": [{"keyid": ..., "sig": ...}]}`.
Source: Dead Simple Signing Envelope v1 (secure-systems-lab/dsse), RFC 8032 (Ed25519).
"""

import base64
import binascii
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.digest import canonical_json, digest_of_bytes, parse_json
from protocol.errors import DigestError, SignatureError

PAYLOAD_TYPE = "application/vnd.wardround+json"
MAX_ENVELOPE_BYTES = 8 << 20


@dataclass(frozen=True)
class PublicKey:
    """A verifying key, known by the digest of its 32 bytes."""

    raw: bytes

    @property
    def key_id(self) -> str:
        """Return the digest that envelopes name."""
        return digest_of_bytes(self.raw)

    @property
    def text(self) -> str:
        """Return base64, as stored and shown."""
        return base64.b64encode(self.raw).decode()

    @classmethod
    def from_text(cls, text: str) -> "PublicKey":
        """Parse base64 of 32 bytes.

        Raises: SignatureError if it is something else.
        """
        try:
            raw = base64.b64decode(text, validate=True)
            Ed25519PublicKey.from_public_bytes(raw)
        except (binascii.Error, ValueError) as error:
            raise SignatureError("Expected an Ed25519 public key: 32 bytes in base64.") from error
        return cls(raw)


@dataclass(frozen=True)
class SigningKey:
    """A private key; its bytes never leave the process but into its own file."""

    private: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> "SigningKey":
        """Make a new key from the system's entropy."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> "SigningKey":
        """Make the key of a 32-byte secret (RFC 8032)."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load_or_create(cls, path: Path) -> "SigningKey":
        """Read the key file, or make one that only its owner can read."""
        if path.exists():
            return cls.from_seed(path.read_bytes())
        key = cls.generate()
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key.private.private_bytes_raw())
        return key

    @property
    def public(self) -> PublicKey:
        """Return the verifying key."""
        return PublicKey(self.private.public_key().public_bytes_raw())


def sign(payload: bytes, key: SigningKey) -> bytes:
    """Return the envelope's bytes for a message's bytes. Deterministic, as Ed25519 is."""
    signature = key.private.sign(_pre_authentication(payload))
    return canonical_json(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": key.public.key_id, "sig": base64.b64encode(signature).decode()}],
        }
    )


def open_envelope(envelope: bytes, key: PublicKey) -> bytes:
    """Return the message's bytes if this key signed them.

    Raises: SignatureError if the envelope is malformed, too large, or not signed by the key.
    """
    payload, signature, _ = _parse(envelope)
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, _pre_authentication(payload))
    except InvalidSignature as error:
        raise SignatureError("The signature does not belong to the expected key. The message is not used.") from error
    return payload


def signer_of(envelope: bytes) -> str:
    """Return the key id that an envelope names; nothing is verified yet."""
    return _parse(envelope)[2]


def read_unverified(envelope: bytes) -> bytes:
    """Return the message's bytes without checking the signature; for routing and display only."""
    return _parse(envelope)[0]


def _parse(envelope: bytes) -> tuple[bytes, bytes, str]:
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise SignatureError(f"An envelope holds at most {MAX_ENVELOPE_BYTES} bytes.")
    try:
        document: Any = parse_json(envelope)
        if document["payloadType"] != PAYLOAD_TYPE or len(document["signatures"]) != 1:
            raise SignatureError(f"Expected one signature over a payload of type {PAYLOAD_TYPE}.")
        entry = document["signatures"][0]
        payload = base64.b64decode(document["payload"], validate=True)
        return payload, base64.b64decode(entry["sig"], validate=True), str(entry["keyid"])
    except (DigestError, KeyError, TypeError, IndexError, binascii.Error, ValueError) as error:
        raise SignatureError("Expected a DSSE envelope: payload, payloadType and one signature.") from error


def _pre_authentication(payload: bytes) -> bytes:
    # DSSE's PAE: lengths before the parts, so that no two (type, payload) pairs share an encoding.
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
