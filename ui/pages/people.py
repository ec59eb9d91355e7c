"""People and hospitals: for the hub's operator, who lets people sign in and invites hospitals."""

from html import escape

import streamlit as st

from ui import markup
from ui.live import attempt
from ui.session import OPERATOR, Session, require_session
from ui.study_choice import local_clock
from ui.views import PersonEntry, Site

ROLES = {
    "researcher": "launches studies and watches their rounds",
    "clinician": "validates versions and records decisions",
    "operator": "invites hospitals and people, audits",
}
LEAST_PASSWORD = 10
INVITATION = "invitation"


def show() -> None:
    """Draw the page."""
    session = require_session()
    if not session.may(OPERATOR):
        st.html(markup.note("wait", "This page is for the hub's operator."))
        return
    st.html(markup.head("People & hospitals", "Who may sign in here, and which hospitals may take part."))
    left, right = st.columns(2, gap="small")
    with left, st.container(key="card-people"):
        _people(session)
    with right, st.container(key="card-sites"):
        _sites(session)


def _people(session: Session) -> None:
    st.html(markup.section("People"))
    with st.expander("Add a person", icon=":material/person_add:"), st.form("add-person", border=False):
        name = st.text_input("Name", help="Lower-case letters, digits and hyphens.")
        role = st.selectbox("Role", list(ROLES), format_func=lambda key: f"{key}: {ROLES[key]}")
        password = st.text_input("First password", type="password", help=f"At least {LEAST_PASSWORD} characters.")
        if st.form_submit_button("Add", type="primary"):
            _add(session, name.strip(), role, password)
    st.html(markup.table(["Name", "Role", "Since"], [_person_row(person) for person in session.hub.people()]))


def _add(session: Session, name: str, role: str, password: str) -> None:
    if not name or len(password) < LEAST_PASSWORD:
        st.html(markup.note("wait", f"Give a name and a password of at least {LEAST_PASSWORD} characters."))
        return
    attempt(lambda: session.hub.add_person(name, role, password), f"{name} may sign in now.")


def _person_row(person: PersonEntry) -> list[str]:
    off = " " + markup.pill("suspended", "disabled") if person.disabled else ""
    return [f"<b>{escape(person.name)}</b>{off}", escape(person.role), local_clock(person.created_at)]


def _sites(session: Session) -> None:
    st.html(markup.section("Hospitals"))
    with st.expander("Invite a hospital", icon=":material/add_home_work:"), st.form("invite", border=False):
        name = st.text_input("Hospital's name", placeholder="st-anna", help="Lower-case letters, digits and hyphens.")
        if st.form_submit_button("Make an invitation", type="primary") and name.strip():
            attempt(lambda: _invite(session, name.strip()), "Invitation made.")
    invitation = st.session_state.pop(INVITATION, None)
    if invitation is not None:
        until = local_clock(invitation.expires_at)
        text = f"Shown once, valid until {until}. Hand it to {invitation.name}'s administrator:"
        st.html(markup.note("good", "One-time code", text))
        st.code(invitation.code, language=None)
    st.html(markup.table(["Name", "State", "Enrolled"], [_site_row(site) for site in session.hub.sites()]))


def _invite(session: Session, name: str) -> None:
    st.session_state[INVITATION] = session.hub.invite_site(name)


def _site_row(site: Site) -> list[str]:
    return [f"<b>{escape(site.name)}</b>", markup.pill(site.state), local_clock(site.enrolled_at)]


if __name__ == "__main__":
    show()
