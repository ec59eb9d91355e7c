"""Who is signed in at the hospital's own pages: the token from the browser's cookie, the person from the site's API."""

from dataclasses import dataclass

import httpx
import streamlit as st

from ui import markup
from ui.session import browser_token, page_settings
from ui.site_client import ReadingClient, SiteClient, open_site_http
from ui.site_views import SitePerson

ADMINISTRATOR, CLINICIAN, AUDITOR = "administrator", "clinician", "auditor"


@dataclass(frozen=True)
class SiteSession:
    """A signed-in person, the site as they may use it, and its reading API where these pages are told of one."""

    person: SitePerson
    site: SiteClient
    reading: ReadingClient | None

    def may(self, *roles: str) -> bool:
        """Tell whether the person has one of the roles; the site checks again, this only keeps useless buttons away."""
        return self.person.role in roles


def current_site_session() -> SiteSession | None:
    """Return who is signed in, or None without a cookie.

    Raises: SignedOutError if the site no longer accepts the token; SiteUnreachableError if it does not answer.
    """
    token = browser_token()
    if not token:
        return None
    settings = page_settings()
    site = SiteClient(_http(settings.site_url), token)
    reading = ReadingClient(_http(settings.reading_url), token) if settings.reading_url else None
    if st.session_state.get("_token") != token:
        st.session_state["_person"] = site.me()
        st.session_state["_token"] = token
    return SiteSession(st.session_state["_person"], site, reading)


def require_site_session() -> SiteSession:
    """Return who is signed in; stop the page without a word otherwise, because `app.py` has spoken already."""
    session = current_site_session()
    if session is None:
        st.stop()
    return session


def require_reading(session: SiteSession) -> ReadingClient:
    """Return the reading API; stop the page with what to do where these pages know of none."""
    if session.reading is None:
        text = "Start `wardround site reading-api SITE` as the worker's user, and these pages with --reading URL."
        st.html(markup.empty("This page needs the reading API", text.replace("`", "")))
        st.stop()
    return session.reading


@st.cache_resource(show_spinner=False, on_release=httpx.Client.close)
def _http(url: str) -> httpx.Client:
    return open_site_http(url)
