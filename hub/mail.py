"""Post signed messages into the sites' mailboxes.

What goes to many sites is put down row by row and written by the session's next flush, all rows in one statement: a
round of a thousand sites would else be three thousand answers of the database, while no other writer can go on.
"""

from collections.abc import Iterable

from hub.services import Services, wake_after_commit
from hub.storage.database import Session
from hub.storage.stores import add_mail
from protocol.message import Message
from protocol.signing import sign


def post(session: Session, services: Services, site: str, message: Message) -> bytes:
    """Sign a message with the hub's key, put it into the site's mailbox and wake the site after the commit.

    Returns the signed envelope.
    """
    return post_document(session, services, site, message.canonical_bytes())


def post_document(session: Session, services: Services, site: str, document: bytes) -> bytes:
    """Post a message whose canonical bytes are at hand; see `post`."""
    envelope = sign(document, services.key)
    _put(session, services, site, envelope)
    return envelope


def post_to_all(session: Session, services: Services, sites: Iterable[str], message: Message) -> None:
    """Post the same message to several sites, signed once: the signature of the same bytes is the same."""
    envelope = sign(message.canonical_bytes(), services.key)
    for site in sites:
        _put(session, services, site, envelope)


def _put(session: Session, services: Services, site: str, envelope: bytes) -> None:
    add_mail(session, site, envelope, services.clock())
    wake_after_commit(session, site)
