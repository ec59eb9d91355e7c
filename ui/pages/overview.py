"""Overview: the hospitals and what they are doing, the studies and how far they are."""

import time
from html import escape

import streamlit as st

from ui import markup
from ui.live import live
from ui.session import RESEARCHER, Session, require_session
from ui.study_choice import KEPT
from ui.views import Site, Study
from ui.wording import ago, epsilon, plural, words_of

STUDIES_SHOWN = 12


def show() -> None:
    """Draw the page."""
    session = require_session()
    live(lambda: _state_of_things(session))


def _state_of_things(session: Session) -> None:
    sites, studies = session.hub.sites(), session.hub.studies()
    st.html(markup.head("Overview", _summary(sites, studies)))
    _hospitals(sites)
    _studies(session, studies)


def _summary(sites: list[Site], studies: list[Study]) -> str:
    enrolled = [site for site in sites if site.state == "enrolled"]
    online = sum(site.online for site in enrolled)
    running = sum(study.state == "running" for study in studies)
    waiting = sum(study.state == "proposed" for study in studies)
    words = [f"{online} of {plural(len(enrolled), 'hospital')} online"] if enrolled else []
    words += [f"{plural(running, 'study', 'studies')} running"] if running else []
    words += [f"{waiting} waiting for hospitals"] if waiting else []
    return ", ".join(words) + "." if words else "Nothing is running at the moment."


def _hospitals(sites: list[Site]) -> None:
    st.html(markup.section("Hospitals"))
    if not sites:
        text = "The hub's operator invites a hospital; its administrator enrols it with `wardround site enroll`."
        st.html(markup.empty("No hospital has joined yet", text.replace("`", "")))
        return
    now = time.time()
    st.html(markup.grid(_hospital_card(site, now) for site in sites))


def _hospital_card(site: Site, now: float) -> str:
    if site.state != "enrolled":
        quiet = "An invitation is out. The hospital has not enrolled yet." if site.state == "invited" else ""
        body = f'<div class="wr-quiet">{quiet}</div>'
        return markup.card(site.name, markup.HOUSE, markup.pill(site.state), body)
    state = markup.pill("online" if site.online else "offline")
    busy = site.activity in {"training", "evaluating", "sending"}
    doing = words_of(site.activity or "idle").capitalize()
    share = f"{100 * (site.fraction or 0):.0f} %" if busy else ""
    line = markup.ends(doing if site.online else f"Last: {doing.lower()}", share)
    progress = markup.bar(site.fraction if busy else 0, "" if site.online else "late")
    facts = markup.facts([("last heard", ago(site.last_seen_at, now))])
    return markup.card(site.name, markup.HOUSE, state, line + progress + facts)


def _studies(session: Session, studies: list[Study]) -> None:
    st.html(markup.section("Studies"))
    if not studies:
        mine = session.may(RESEARCHER)
        text = "Describe the question once; each hospital decides for itself whether it takes part."
        st.html(
            markup.empty("No study yet", text if mine else "A researcher launches studies; they will be listed here.")
        )
    for study in studies[:STUDIES_SHOWN]:
        with st.container(key=f"card-{study.name}"):
            _study_row(study)


def _study_row(study: Study) -> None:
    text, figures, action = st.columns([5.2, 4.6, 1.15], vertical_alignment="center", gap="medium")
    approved = sum(site.state == "approved" for site in study.sites)
    text.html(
        f'<div class="wr-title">{escape(study.label)}{_short_name(study)}</div>'
        f'<div class="wr-under-title">{markup.pill(study.state)} <span class="wr-quiet">'
        f"{approved} of {plural(len(study.sites), 'hospital')} taking part, "
        f"by {escape(study.proposed_by)}</span></div>"
    )
    done = study.rounds_planned if study.state == "completed" else max(0, (study.round or 0) - 1)
    figures.html(
        markup.ends(_where(study), _privacy(study), quiet=True)
        + markup.bar(done / study.rounds_planned, "done" if study.state == "completed" else "")
    )
    if action.button("Open", key=f"open-{study.name}", width="stretch"):
        st.session_state[KEPT] = study.name
        st.switch_page("rounds.py")


def _short_name(study: Study) -> str:
    return f' <span class="wr-quiet">{escape(study.name)}</span>' if study.title else ""


def _where(study: Study) -> str:
    if study.state == "completed":
        return f"{plural(study.rounds_planned, 'round')} done"
    if study.state == "proposed":
        return f"{plural(study.rounds_planned, 'round')} planned"
    return f"round {study.round or 0} of {study.rounds_planned}"


def _privacy(study: Study) -> str:
    promised, spent = study.privacy.epsilon_target, study.privacy.epsilon
    if promised is None:
        return "no differential privacy"
    return f"ε {promised:g} promised" if spent is None else f"ε {epsilon(spent)} of {promised:g}"


if __name__ == "__main__":
    show()
