"""The settings of one UI process, read at the entry point and handed down through Streamlit's secrets.

Streamlit runs the pages as scripts, so they cannot be given arguments; `st.App(secrets=...)` is its own way of handing
values of the process to them. Nothing secret is in there: people's tokens live in their browsers' cookies only.
"""

import hashlib
from dataclasses import asdict, dataclass, fields
from typing import Any

DEFAULT_PORT = 8501
SECRETS_SECTION = "wardround"


@dataclass(frozen=True)
class UiSettings:
    """Where the hub is, or the hospital's own node, and where this process listens.

    With `site_url` these are the pages of one hospital: then no hub is spoken to, and `reading_url` may be there.
    """

    hub_url: str
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    site_url: str = ""
    reading_url: str = ""

    @property
    def cookie_name(self) -> str:
        """Return the cookie's name; it belongs to one hub or site, because browsers share cookies between ports."""
        return "wardround-" + hashlib.sha256((self.site_url or self.hub_url).encode()).hexdigest()[:10]

    def as_secrets(self) -> dict[str, Any]:
        """Return what `st.App` hands to the pages."""
        return {SECRETS_SECTION: asdict(self)}

    @classmethod
    def from_secrets(cls, secrets: Any) -> "UiSettings":
        """Read what `as_secrets` wrote, inside a page."""
        section = secrets[SECRETS_SECTION]
        return cls(**{field.name: section[field.name] for field in fields(cls)})
