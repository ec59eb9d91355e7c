"""Post a signed message into a site's mailbox."""

from hub.services import Services, wake_after_commit
from hub.storage.database import Session
from hub.storage.stores import add_mail
from protocol.message import Message
from protocol.signing import sign


def post(session: Session, services: Services, site: str, message: Message) -> bytes:
    """Sign a message with the hub's key, put it into the site's mailbox and wake the site after the commit.

    Returns the signed envelope.
    """
    envelope = sign(message.canonical_bytes(), services.key)
    add_mail(session, site, envelope, services.clock())
    wake_after_commit(session, site)
    return envelope
