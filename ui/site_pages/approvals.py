"""Approvals: what was proposed to this hospital, one study in plain words, and the decision on it."""

from html import escape

import streamlit as st

from ui import markup
from ui.live import attempt
from ui.site_choice import choose_proposed
from ui.site_session import ADMINISTRATOR, SiteSession, require_site_session
from ui.site_views import ProposedStudy, Standing, StudyInWords
from ui.wording import count, epsilon, power_of_ten

DECIDED = {"approved": "Approved.", "refused": "Refused.", "withdrawn": "Withdrawn."}
MOST_DAYS = 3660


def show() -> None:
    """Draw the page."""
    session = require_site_session()
    standing = session.site.standing()
    lead = "What was proposed to this hospital. Nothing is trained here before a person says yes, or the policy does."
    st.html(markup.head(f"Approvals at {standing.site}", lead))
    _standing(standing)
    study = choose_proposed(session.site)
    if study is None:
        return
    page = session.site.study(study.digest)
    with st.container(key="card-study"):
        _in_words(study, page)
    if session.may(ADMINISTRATOR):
        with st.container(key="card-decision"):
            _decision(session, study, page)


def _standing(standing: Standing) -> None:
    for kind, title, text in _notes(standing):
        st.html(markup.note(kind, title, text))


def _notes(standing: Standing) -> list[tuple[str, str, str]]:
    found = []
    if not standing.enrolled:
        found.append(("wait", "This hospital is not enrolled yet", "Enrol it with wardround site enroll."))
    if standing.paused or standing.draining:
        words = "is paused" if standing.paused else "is draining: nothing new begins"
        found.append(("wait", f"This node {words}", "wardround site resume lets it go on."))
    if standing.ledger_behind or standing.behind_mark:
        text = "Nothing is spent before it has made up for it: wardround site reconcile."
        found.append(("bad", "The privacy ledger is behind", text))
    hours = standing.train_hours
    if hours is not None and not hours["open"]:
        found.append(("info", "Outside the hours of training", f"No training begins before {hours['opens_at']}."))
    return found


def _in_words(study: ProposedStudy, page: StudyInWords) -> None:
    st.html(markup.section(study.label, study.name if study.title else ""))
    taken_up = study.standing in {"undecided", study.state} or study.state not in {"awaiting", "counting"}
    state = (
        markup.pill(study.state) if taken_up else markup.pill(study.standing, f"{study.standing}, the gate takes it up")
    )
    decided = f" <span class='wr-quiet'>by {escape(study.decided_by)}</span>" if study.decided_by else ""
    until = f" <span class='wr-quiet'>until {escape(study.expires_at[:10])}</span>" if study.expires_at else ""
    st.html(f'<div class="wr-under-title">{state}{decided}{until}{markup.digest(study.digest)}</div>')
    st.html(markup.tiles(_tiles(study)))
    if study.explanation or study.policy_objection:
        st.html(markup.note("wait", "What stands in its way", study.explanation or study.policy_objection or ""))
    for title, sentences in page.summary.items():
        st.html(markup.sentences(title, sentences))


def _tiles(study: ProposedStudy) -> list[str]:
    promised = "none" if study.epsilon is None else epsilon(study.epsilon)
    delta = (
        f"delta {power_of_ten(study.delta)}" if study.epsilon is not None and study.delta else "no differential privacy"
    )
    return [
        markup.tile("Patients to train on", _number(study.training_patients), "at this hospital"),
        markup.tile("Patients held out", _number(study.held_out_patients), "versions are judged on them"),
        markup.tile("Epsilon", promised, delta),
        markup.tile("Rounds", _number(study.rounds), study.network or ""),
    ]


def _number(value: int | None) -> str:
    return "—" if value is None else count(value)


def _decision(session: SiteSession, study: ProposedStudy, page: StudyInWords) -> None:
    st.html(markup.section("Your decision", f"signed as {session.person.name}, kept in this hospital's records"))
    if study.state == "counting":
        st.html(markup.note("info", "The patients are still being counted", "Refusing is possible already."))
    days = st.number_input(
        "An approval ends after so many days", 1, MOST_DAYS, value=None, placeholder="as the policy says"
    )
    read = st.checkbox("I have read what is above, and decide for this hospital.", key=f"read-{page.shown_digest}")
    approve, refuse, withdraw, _ = st.columns([1, 1, 1, 3])
    chosen = None
    approvable = read and not study.is_approved and study.state != "counting"
    if approve.button("Approve", type="primary", disabled=not approvable, width="stretch"):
        chosen = "approved"
    if refuse.button("Refuse", disabled=not read or study.is_approved, width="stretch"):
        chosen = "refused"
    if withdraw.button("Withdraw", disabled=not read or not study.is_approved, width="stretch"):
        chosen = "withdrawn"
    if chosen is not None and read:  # what was ticked is what is shown: a page that changed since is not ticked
        shown = page.shown_digest if chosen == "approved" else None
        until = None if days is None or chosen != "approved" else int(days)
        if attempt(lambda: session.site.decide(study.digest, chosen, shown, until), DECIDED[chosen]):
            st.rerun()


if __name__ == "__main__":
    show()
