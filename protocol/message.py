"""What every message is: frozen, closed against unknown fields, canonical JSON. The kinds are in `messages.py`."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from protocol.digest import canonical_json, digest_of_bytes

Count = Annotated[int, Field(ge=0, lt=2**53)]
RoundNumber = Annotated[int, Field(ge=0, le=1_000_000)]


class Message(BaseModel):
    """Base of all messages: frozen and closed against unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def canonical_bytes(self) -> bytes:
        """Return the bytes that are stored, signed and digested."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))

    @property
    def digest(self) -> str:
        """Return the digest of a message that was made here; of a received one, digest the received bytes instead."""
        return digest_of_bytes(self.canonical_bytes())


MessageType = TypeVar("MessageType", bound=Message)
