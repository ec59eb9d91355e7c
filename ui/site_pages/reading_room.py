"""Reading room: held-out patients as cases under codes, read blinded; the hospital's own label is told afterwards.

A picture goes from the site's answer into the page itself; this process keeps the last one of each signed-in person in
memory, so that a redraw is no second view.
"""

import base64
from html import escape

import streamlit as st

from ui import markup
from ui.errors import HubRefusedError
from ui.live import attempt
from ui.site_choice import choose_proposed
from ui.site_client import ReadingClient
from ui.site_session import ADMINISTRATOR, CLINICIAN, SiteSession, require_reading, require_site_session
from ui.site_views import CaseEntry, CasePage, GivenReading, Room
from ui.study_choice import local_clock
from ui.wording import plural

CONFIDENCE = {1: "1 guessed", 2: "2", 3: "3 fairly sure", 4: "4", 5: "5 certain"}
ROOM, CASE, PICTURE = "reading-room", "reading-case", "reading-picture"
VIEWS_SHOWN = 100


def show() -> None:
    """Draw the page."""
    session = require_site_session()
    lead = "Patients on whom the study does not train, under codes. Read first; the hospital's label comes after."
    st.html(markup.head("Reading room", lead))
    reading = require_reading(session)
    if session.may(ADMINISTRATOR):
        with st.expander("Open the room of a study", icon=":material/door_open:"):
            _open(session, reading)
    room = _choose_room(reading)
    if room is None:
        return
    if session.may(CLINICIAN):
        _read(reading, room)
    else:
        _progress(reading, room)


def _open(session: SiteSession, reading: ReadingClient) -> None:
    study = choose_proposed(session.site)
    if study is None:
        return
    text = "Clinicians of this hospital then see the study's held-out patients, de-identified. Each view is recorded."
    st.html(f'<p class="wr-quiet">{text}</p>')
    if st.button("Open it", type="primary"):
        attempt(lambda: reading.open_room(session.site.study(study.digest)), "The room is open.")


def _choose_room(reading: ReadingClient) -> Room | None:
    rooms = {room.study_digest: room for room in reading.rooms()}
    if not rooms:
        st.html(markup.empty("No reading room is open", "An administrator of this hospital opens one for a study."))
        return None
    if len(rooms) == 1:
        return next(iter(rooms.values()))
    chosen = st.selectbox("Study", list(rooms), format_func=lambda key: rooms[key].label, key=ROOM)
    return rooms[chosen]


def _read(reading: ReadingClient, room: Room) -> None:
    cases = reading.cases(room.study_digest)
    if not cases:
        st.html(markup.empty("No case is in this room", "Its patients take no part any more."))
        return
    code = _choose_case(room, cases)
    picture, judgement = st.columns([2.2, 1], gap="medium")
    case = reading.case(code)
    with picture, st.container(key="card-picture"):
        _picture(reading, case)
    with judgement, st.container(key="card-judgement"):
        _judgement(reading, room, case)


def _choose_case(room: Room, cases: list[CaseEntry]) -> str:
    done = sum(case.read for case in cases)
    st.html(markup.ends(room.label, f"{done} of {plural(len(cases), 'case')} read"))
    st.html(markup.bar(done / len(cases), "done" if done == len(cases) else ""))
    codes = [case.case for case in cases]
    read = {case.case for case in cases if case.read}
    if st.session_state.get(CASE) not in codes:
        st.session_state[CASE] = next((code for code in codes if code not in read), codes[0])
    chosen: str = st.selectbox("Case", codes, key=CASE)
    return chosen


def _picture(reading: ReadingClient, case: CasePage) -> None:
    image, number = 0, 0
    st.html(markup.section(case.case, plural(len(case.slices), "image")))
    if len(case.slices) > 1:
        image = (
            st.segmented_control(
                "Image",
                range(len(case.slices)),
                default=0,
                format_func=lambda one: f"{one + 1}",
                key=f"image-{case.case}",
            )
            or 0
        )
    slices = case.slices[image]
    if slices > 1:
        number = st.slider("Slice", 1, slices, value=slices // 2 + 1, key=f"slice-{case.case}-{image}") - 1
    try:
        content = _content(reading, case.case, image, number)
    except HubRefusedError as refused:
        st.html(markup.note("wait", refused.message, refused.remedy))
        return
    st.html(_shown(content, f"Case {case.case}, image {image + 1}, slice {number + 1}"))
    st.html(
        '<p class="wr-quiet">For display only: eight bits, windowed, at most 1024 pixels wide. Not for diagnosis.</p>'
    )


def _content(reading: ReadingClient, code: str, image: int, number: int) -> bytes:
    wanted = code, image, number
    kept = st.session_state.get(PICTURE)
    if kept is None or kept[0] != wanted:
        kept = wanted, reading.image(code, image, number)
        st.session_state[PICTURE] = kept
    content: bytes = kept[1]
    return content


def _shown(content: bytes, description: str) -> str:
    data = base64.b64encode(content).decode()
    return f'<div class="wr-picture"><img alt="{escape(description)}" src="data:image/png;base64,{data}"></div>'


def _judgement(reading: ReadingClient, room: Room, case: CasePage) -> None:
    st.html(markup.section("Your reading"))
    if not room.classes:
        st.html('<p class="wr-quiet">This study has no classes to choose from; its cases are only looked at.</p>')
    elif case.reading is None:
        _form(reading, room, case)
    else:
        _given(case.reading, case.site_labels or [])


def _form(reading: ReadingClient, room: Room, case: CasePage) -> None:
    with st.form(f"reading-{case.case}", border=False):
        if room.several:
            labels = st.multiselect("What do you see?", room.classes, placeholder="nothing of these")
        else:
            chosen = st.radio("What do you see?", room.classes, index=None)
            labels = [] if chosen is None else [chosen]
        sure = st.select_slider("How sure are you?", list(CONFIDENCE), value=3, format_func=lambda one: CONFIDENCE[one])
        st.html('<p class="wr-quiet">A reading stands as it is given. The hospital\'s label is shown afterwards.</p>')
        given = st.form_submit_button("Give the reading", type="primary", width="stretch")
    if given and not labels and not room.several:
        st.html(markup.note("wait", "Choose what you see."))
    elif given and attempt(lambda: reading.give_reading(case.case, list(labels), sure), "Your reading is kept."):
        st.rerun()


def _given(own: GivenReading, site_labels: list[str]) -> None:
    agrees = set(own.labels) == set(site_labels)
    pairs = [
        ("you read", f"<b>{escape(_named(own.labels))}</b>"),
        ("how sure", escape(CONFIDENCE[own.confidence])),
        ("the hospital's label", f"<b>{escape(_named(site_labels))}</b>"),
        ("given", local_clock(own.given_at)),
    ]
    st.html(
        markup.note("good" if agrees else "wait", "It agrees with the label" if agrees else "It differs from the label")
    )
    st.html(markup.facts(pairs))
    st.button("Next case", type="primary", width="stretch", on_click=_forget_case)


def _forget_case() -> None:
    st.session_state.pop(CASE, None)


def _named(labels: list[str]) -> str:
    return ", ".join(labels) or "nothing of these"


def _progress(reading: ReadingClient, room: Room) -> None:
    given, views = reading.readings(room.study_digest), reading.views()
    agreeing = sum(set(one.labels) == set(one.site_labels) for one in given)
    share = f"{100 * agreeing / len(given):.0f} %" if given else "—"
    tiles = [
        markup.tile("Cases", str(room.cases), f"opened by {room.opened_by}"),
        markup.tile("Readings", str(len(given)), plural(len({one.person for one in given}), "reader")),
        markup.tile("Agree with the label", share, f"{agreeing} of {len(given)}"),
        markup.tile("Views", str(len(views)), "of all rooms, each recorded"),
    ]
    st.html(markup.tiles(tiles))
    left, right = st.columns(2, gap="small")
    with left, st.container(key="card-readings"):
        st.html(markup.section("Readings", "pictures are for clinicians alone"))
        rows = [
            [escape(one.case_code), escape(one.person), escape(_named(one.labels)), escape(_named(one.site_labels))]
            for one in reversed(given)
        ]
        st.html(markup.table(["Case", "Who", "Read", "Label"], rows) if rows else '<p class="wr-quiet">None yet.</p>')
    with right, st.container(key="card-views"):
        st.html(markup.section("Who looked", f"the last {VIEWS_SHOWN}"))
        rows = [
            [local_clock(one.at), escape(one.person), escape(one.case_code), escape(one.outcome)]
            for one in views[: -VIEWS_SHOWN - 1 : -1]
        ]
        st.html(markup.table(["When", "Who", "Case", ""], rows) if rows else '<p class="wr-quiet">Nobody yet.</p>')


if __name__ == "__main__":
    show()
