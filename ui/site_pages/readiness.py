"""Readiness: could this hospital take part in a study? `wardround site check` as a page, before anybody approves."""

from html import escape
from typing import Any

import streamlit as st

from ui import markup
from ui.live import attempt, live
from ui.site_choice import choose_proposed, findings_table, said
from ui.site_session import ADMINISTRATOR, SiteSession, require_reading, require_site_session
from ui.site_views import ProposedStudy, Readiness, ReadinessReport
from ui.study_choice import local_clock

LOOKING_SECONDS = 2.0


def show() -> None:
    """Draw the page."""
    session = require_site_session()
    lead = (
        "Patients, labels, price, disk and minutes of one study on this machine. Nothing is approved, charged or sent."
    )
    st.html(markup.head("Readiness", lead))
    reading = require_reading(session)
    study = choose_proposed(session.site)
    if study is None:
        return
    found = reading.readiness(study.digest)
    if session.may(ADMINISTRATOR):
        _ask(session, study, found)
    if found.state == "looking":
        live(lambda: _wait(session, study), every_seconds=LOOKING_SECONDS)
        return
    _result(found)


def _ask(session: SiteSession, study: ProposedStudy, found: Readiness) -> None:
    measure, button, _ = st.columns([2.4, 1.2, 2], vertical_alignment="center")
    measures = measure.toggle("Take some steps of training, to tell minutes and memory", value=True)
    if button.button("Look now", type="primary", disabled=found.state == "looking", width="stretch"):

        def ask() -> None:
            require_reading(session).examine(session.site.study(study.digest), measures=measures)

        if attempt(ask, "It is being looked at."):
            st.rerun()


def _wait(session: SiteSession, study: ProposedStudy) -> None:
    if require_reading(session).readiness(study.digest).state != "looking":
        st.rerun()
    st.html(markup.note("info", "Being looked at", "It may take some minutes. You may leave this page."))


def _result(found: Readiness) -> None:
    report = found.report
    if found.state == "failed":
        st.html(markup.note("bad", "There is no report", found.explanation))
    elif report is None:
        st.html(markup.empty("Nobody has looked yet", "An administrator looks; the report is then kept here."))
    else:
        when = f"looked at {local_clock(found.made_at)} by {found.asked_by}"
        kind = "good" if report.ready else "bad"
        verdict = "This hospital is ready for the study" if report.ready else "This hospital is not ready for the study"
        st.html(markup.note(kind, verdict, when))
        with st.container(key="card-findings"):
            st.html(markup.section("What was found"))
            st.html(findings_table(report.findings))
        if report.patients:
            with st.container(key="card-patients"):
                _patients(report)


def _patients(report: ReadinessReport) -> None:
    patients = report.patients
    note = f"in tens; hidden: fewer than {patients['hidden_below']}, or what would tell such a number"
    st.html(markup.section("Patients", note))
    tiles = [
        markup.tile("Matched", said(patients["patients"]), "patients"),
        markup.tile("With", said(patients["images"]), "images or rows"),
    ]
    minutes = report.machine.get("round_minutes")
    if minutes is not None:
        tiles.append(
            markup.tile("A round", f"{minutes * 60:.0f} s" if minutes < 2 else f"{minutes:.0f} min", "on this machine")
        )
    st.html(markup.tiles(tiles))
    classes = sorted({name for split in patients["classes"].values() for name in split})
    rows = [
        _split_row(name, total, patients["classes"].get(name) or {}, classes)
        for name, total in patients["by_split"].items()
    ]
    numeric = range(1, len(classes) + 2)
    st.html(markup.table(["Split", "Patients", *classes], rows, numeric=list(numeric)))


def _split_row(name: str, total: int | None, held: dict[str, Any], classes: list[str]) -> list[str]:
    return [f"<b>{escape(name)}</b>", said(total), *(said(held.get(one)) for one in classes)]


if __name__ == "__main__":
    show()
