"""What every step of the gate works with, and how a message becomes final."""

import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.errors import SignatureError
from protocol.message import Message
from protocol.signing import PublicKey, SigningKey
from site_node.errors import EnrolmentError
from site_node.governance import egress
from site_node.governance.policy import Policy, load_policy
from site_node.settings import SitePaths, SiteSettings


def nothing(step: str) -> None:
    """Do nothing at a step; tests put a power cut in its place."""


def fresh_nonce() -> str:
    """Return 16 random bytes in hex, as the operating system draws them."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class GateContext:
    """The gate's settings, database, keys and clock. `checkpoint` is called between steps that a crash may part.

    `nonce` makes each charge of the privacy ledger unlike any other. No setting of a site chooses where it comes from.
    """

    settings: SiteSettings
    database: sqlite3.Connection
    key: SigningKey
    hub_key: PublicKey
    clock: Callable[[], float]
    checkpoint: Callable[[str], None] = nothing
    nonce: Callable[[], str] = fresh_nonce
    said: set[str] = field(default_factory=set)

    @property
    def paths(self) -> SitePaths:
        """Return where everything of the site lies."""
        return self.settings.paths

    def policy(self) -> Policy:
        """Read the policy as it is now.

        Raises: SettingsError if it is missing or broken; nothing is decided then.
        """
        return load_policy(self.settings.policy)

    def is_news(self, what: str) -> bool:
        """Tell whether this was not said yet since the gate started: what lasts is logged once, not by each pass."""
        news = what not in self.said
        self.said.add(what)
        return news

    def send(self, message: Message) -> int:
        """Record a message for sending. Call within a transaction; the outbox is filled after the commit."""
        return egress.record(self.database, message, self.key, self.clock())


def read_hub_key(paths: SitePaths) -> PublicKey:
    """Return the hub's key as kept at enrolment.

    Raises: EnrolmentError if the site was never enrolled.
    """
    try:
        return PublicKey.from_text(paths.hub_key.read_text().strip())
    except (FileNotFoundError, SignatureError):
        raise EnrolmentError(
            "This site is not enrolled: the hub's key is missing.", "Run `wardround site enroll DIR --code CODE`."
        ) from None
