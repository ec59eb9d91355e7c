"""The one message that homomorphic encryption adds to those of secure aggregation (`secure_messages.py`).

Keys, shares, survivors and their proof are the same as under masks. What a site seals for its peers is not a share but
its contribution to the round's key; what it sends is not a masked but an encrypted vector; and instead of shares for
the hub, some of the sites send the decrypted sum.

    hub:  DecryptionRequest  the signed notices of all summed ciphertexts, where they lie, and the hub's own sum
    site: UpdateNotice       steps ["decrypted"], and the words of the sum; once

A decrypted sum is what the hub was to learn; nothing else in here depends on a patient.
"""

from typing import Annotated, Literal

from pydantic import Field

from protocol.digest import Digest
from protocol.message import Count, Message, RoundNumber
from protocol.secure_messages import MOST_MEMBERS

MAX_ENVELOPE_CHARACTERS = 16 * 1024


class BlobReference(Message):
    """Bytes that the hub keeps, by digest and size."""

    blob: Digest
    bytes: Count


class DecryptionRequest(Message):
    """Hub to site: verify these ciphertexts, add them, compare with this sum, and send the decrypted sum."""

    schema_: Literal["wardround.decryption-request/1"] = Field(default="wardround.decryption-request/1", alias="schema")
    task_id: Annotated[str, Field(max_length=200, pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    task_digest: Digest
    study_digest: Digest
    round: RoundNumber
    roster_digest: Digest
    base: BlobReference
    notices: Annotated[list[Annotated[str, Field(max_length=MAX_ENVELOPE_CHARACTERS)]], Field(max_length=MOST_MEMBERS)]
    ciphertexts: Annotated[list[BlobReference], Field(max_length=MOST_MEMBERS)]
    sum: BlobReference

    @property
    def blobs(self) -> list[BlobReference]:
        """Return all that a site must fetch for it."""
        return [self.base, *self.ciphertexts, self.sum]
