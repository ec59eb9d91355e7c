"""Index: what this hospital's folders hold, in tens, and why the rest cannot be used."""

import time
from html import escape

import streamlit as st

from ui import markup
from ui.site_choice import said
from ui.site_session import require_reading, require_site_session
from ui.site_views import IndexPage
from ui.study_choice import local_clock
from ui.wording import ago

TILES = {"patients": "Patients", "imaging_studies": "Imaging studies", "series": "Series", "images": "Images"}


def show() -> None:
    """Draw the page."""
    session = require_site_session()
    st.html(
        markup.head("Index", "What lies in this hospital's folders, by DICOM headers. No file and no patient is named.")
    )
    page = require_reading(session).index()
    st.html(markup.tiles(markup.tile(label, said(page.found.get(name)), "in tens") for name, label in TILES.items()))
    left, right = st.columns(2, gap="small")
    with left, st.container(key="card-modalities"):
        st.html(markup.section("By modality", f"hidden: fewer than {page.hidden_below} patients"))
        rows = [
            [f"<b>{escape(name)}</b>", said(held["patients"]), said(held["images"])]
            for name, held in page.modalities.items()
        ]
        st.html(markup.table(["Modality", "Patients", "Images"], rows, numeric=(1, 2)))
    with right, st.container(key="card-roots"):
        _roots(page)
    with st.container(key="card-unusable"):
        _unusable(page)


def _roots(page: IndexPage) -> None:
    when = f"{local_clock(page.changed_at)}, {ago(page.changed_at, time.time())}"
    st.html(markup.section("Folders", f"last change of the index: {when}"))
    rows = [
        [
            escape(root["folder"]),
            markup.pill("online", "there") if root["there"] else markup.pill("failed", "not there"),
        ]
        for root in page.roots
    ]
    st.html(markup.table(["Folder", "State"], rows))
    st.html('<p class="wr-quiet">New images: wardround site index, or its timer.</p>')


def _unusable(page: IndexPage) -> None:
    st.html(markup.section("What cannot be used", "which files: wardround site index SITE --list"))
    if not page.unusable:
        st.html('<p class="wr-quiet">Every file that was found can be used.</p>')
    else:
        rows = [[escape(reason), said(number)] for reason, number in page.unusable.items()]
        st.html(markup.table(["Reason", "Files"], rows, numeric=(1,)))
    if page.doubtful_patients != 0:
        text = "One instance or imaging study names two patients: wardround site cohort SITE --doubtful FILE."
        st.html(markup.note("wait", "Patients whose images stand under several ids", text))


if __name__ == "__main__":
    show()
