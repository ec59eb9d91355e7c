"""Navigation and the frame around each page. Streamlit runs `main` (through `pages/entry.py`) at every interaction.

Which pages a role sees is the table `PAGES`; what a role may *do* is the hub's decision at each call.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import streamlit as st

from ui import markup
from ui.errors import SignedOutError, UiError
from ui.session import CLINICIAN, OPERATOR, RESEARCHER, current_session, page_settings
from ui.site_session import ADMINISTRATOR, AUDITOR, current_site_session

FOLDER = Path(__file__).parent
EVERYONE = (RESEARCHER, CLINICIAN, OPERATOR)
SITE_EVERYONE = (ADMINISTRATOR, CLINICIAN, AUDITOR)
SIGN_OUT_EXPIRED = "/sign-out?notice=expired"


@dataclass(frozen=True)
class PageEntry:
    """A page in the navigation."""

    script: str
    title: str
    icon: str
    section: str
    roles: tuple[str, ...] = EVERYONE


SITE_PAGES = (
    PageEntry("approvals", "Approvals", "approval", "", SITE_EVERYONE),
    PageEntry("readiness", "Readiness", "checklist", "Studies", (ADMINISTRATOR, AUDITOR)),
    PageEntry("reading_room", "Reading room", "radiology", "Studies", SITE_EVERYONE),
    PageEntry("tasks", "Tasks", "task_alt", "Studies", (ADMINISTRATOR, AUDITOR)),
    PageEntry("budget", "Privacy budget", "account_balance_wallet", "Ledgers", (ADMINISTRATOR, AUDITOR)),
    PageEntry("egress", "What left", "outbox", "Ledgers", (ADMINISTRATOR, AUDITOR)),
    PageEntry("index", "Index", "photo_library", "This node", (ADMINISTRATOR, AUDITOR)),
    PageEntry("doctor", "Doctor", "stethoscope", "This node", (ADMINISTRATOR,)),
)
PAGES = (
    PageEntry("overview", "Overview", "home", ""),
    PageEntry("launch_study", "Launch a study", "add_circle", "Studies", (RESEARCHER,)),
    PageEntry("rounds", "Rounds", "autorenew", "Studies"),
    PageEntry("validate_models", "Validate", "fact_check", "Models"),
    PageEntry("versions", "Versions", "account_tree", "Models"),
    PageEntry("people", "People & hospitals", "group", "Hub", (OPERATOR,)),
    PageEntry("audit", "Audit log", "receipt_long", "Hub"),
)


def pages_for(role: str) -> dict[str, list[st.Page]]:
    """Return the navigation of a role at a hub by section."""
    return _navigation(PAGES, "pages", role)


def site_pages_for(role: str) -> dict[str, list[st.Page]]:
    """Return the navigation of a role at a hospital's own node by section."""
    return _navigation(SITE_PAGES, "site_pages", role)


def _navigation(entries: tuple[PageEntry, ...], folder: str, role: str) -> dict[str, list[st.Page]]:
    found: dict[str, list[st.Page]] = {}
    for entry in entries:
        if role in entry.roles:
            page = st.Page(
                FOLDER / folder / f"{entry.script}.py",
                title=entry.title,
                icon=f":material/{entry.icon}:",
                url_path=entry.script.replace("_", "-"),
                default=entry is entries[0],
            )
            found.setdefault(entry.section, []).append(page)
    return found


def frame(name: str, role: str, pages: dict[str, list[st.Page]]) -> None:
    """Draw what all pages share, then the page."""
    chosen = st.navigation(pages, expanded=True)
    st.set_page_config(page_title=f"{chosen.title} · Wardround")
    st.logo(str(FOLDER / "theme" / "logo.svg"), size="large", icon_image=str(FOLDER / "theme" / "mark.svg"))
    with st.sidebar, st.container(key="account"):
        st.html(markup.account(name, role))
    chosen.run()


def signed_out(title: str, text: str) -> None:
    """Show the way back in."""
    st.html(markup.empty(title, text))
    st.html(f'<p style="text-align:center"><a href="{SIGN_OUT_EXPIRED}">Sign in</a></p>')


def main() -> None:
    """Run the app once for one browser."""
    st.set_page_config(page_title="Wardround", page_icon=str(FOLDER / "theme" / "mark.svg"), layout="wide")
    st.html(FOLDER / "theme" / "wardround.css")
    script = (files("ui") / "theme" / "copy.js").read_text(encoding="utf-8")
    st.html(f"<script>{script}</script>", unsafe_allow_javascript=True)
    try:
        found = _who_with_which_pages()
        if found is None:
            signed_out("You are not signed in", "Your sign-in has ended, or was made in another browser.")
            return
        frame(*found)
    except SignedOutError:
        signed_out("Your session has ended", "For safety a sign-in lasts a limited time. Nothing is lost.")
    except UiError as error:
        st.html(markup.note("bad", error.message, error.remedy))
        st.button("Try again", icon=":material/refresh:")


def _who_with_which_pages() -> tuple[str, str, dict[str, list[st.Page]]] | None:
    if page_settings().site_url:
        own = current_site_session()
        return None if own is None else (own.person.name, own.person.role, site_pages_for(own.person.role))
    session = current_session()
    return None if session is None else (session.person.name, session.person.role, pages_for(session.person.role))
