"""The hub's signed answer to a message: it arrived, and was or was not taken."""

from datetime import UTC, datetime

from protocol.messages import Receipt
from protocol.signing import SigningKey, sign


def signed_receipt(key: SigningKey, message_digest: str, reason: str | None, received_at: float) -> bytes:
    """Return the envelope of a receipt; a reason says why the message was not taken, None that it was."""
    receipt = Receipt(
        message_digest=message_digest,
        accepted=reason is None,
        reason=(reason or "")[:500],
        received_at=rfc3339(received_at),
    )
    return sign(receipt.canonical_bytes(), key)


def rfc3339(seconds: float) -> str:
    """Write a time as RFC 3339, UTC, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
