"""From what a caller shows to who it is: an envelope to the site whose gate signed it. Pure."""

from dataclasses import dataclass
from typing import TypeVar

from hub.errors import NotPermittedError
from protocol.message import Message
from protocol.messages import expect
from protocol.signing import PublicKey, open_envelope

MessageType = TypeVar("MessageType", bound=Message)


@dataclass(frozen=True)
class Caller:
    """Who is calling: kind is "site", "person" or "nobody"; `role` is "site" for a site, otherwise the person's."""

    kind: str
    name: str
    role: str

    @property
    def actor(self) -> str:
        """Return the name that audit entries use."""
        return f"{self.kind}:{self.name}"


NOBODY = Caller("nobody", "", "")


def open_signed(identity_key: str, site: str, envelope: bytes, kind: type[MessageType]) -> MessageType:
    """Return the message in an envelope that a site's gate signed with its identity key.

    Raises: SignatureError if the key did not sign it, MessageError if it is of another kind, NotPermittedError if it
        speaks for another site.
    """
    message = expect(open_envelope(envelope, PublicKey.from_text(identity_key)), kind)
    if getattr(message, "site", site) != site:
        raise NotPermittedError("The message speaks for another site.", "A site answers only for itself.")
    return message
