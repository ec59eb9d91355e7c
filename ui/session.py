"""Who is signed in, for the pages: the token from the browser's cookie, the person and a client from the hub."""

from dataclasses import dataclass

import httpx
import streamlit as st

from ui.hub_client import HubClient, open_http
from ui.settings import UiSettings
from ui.views import Person

RESEARCHER, CLINICIAN, OPERATOR = "researcher", "clinician", "operator"


@dataclass(frozen=True)
class Session:
    """A signed-in person and the hub as they may use it."""

    person: Person
    hub: HubClient

    def may(self, role: str) -> bool:
        """Tell whether the person has the role; the hub checks again, this only keeps useless buttons away."""
        return self.person.role == role


def page_settings() -> UiSettings:
    """Return the settings that the process handed to its pages."""
    return UiSettings.from_secrets(st.secrets)


def browser_token() -> str | None:
    """Return the token from the cookie that came with the browser's connection."""
    return st.context.cookies.get(page_settings().cookie_name)


def current_session() -> Session | None:
    """Return who is signed in, or None without a cookie.

    Raises: SignedOutError if the hub no longer accepts the token; HubUnreachableError if it does not answer.
    """
    token = browser_token()
    if not token:
        return None
    hub = HubClient(_http(page_settings().hub_url), token)
    if st.session_state.get("_token") != token:
        st.session_state["_person"] = hub.me()
        st.session_state["_token"] = token
    return Session(st.session_state["_person"], hub)


def forget_person() -> None:
    """Make the next run of the page ask the hub again who is signed in."""
    st.session_state.pop("_token", None)


def require_session() -> Session:
    """Return who is signed in; stop the page without a word otherwise, because `app.py` has spoken already."""
    session = current_session()
    if session is None:
        st.stop()
    return session


@st.cache_resource(show_spinner=False, on_release=httpx.Client.close)
def _http(hub_url: str) -> httpx.Client:
    return open_http(hub_url)
