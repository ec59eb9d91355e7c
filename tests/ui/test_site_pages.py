"""A hospital's own pages, run by Streamlit's AppTest over a made-up site: who sees what, and what is decided."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.ui.conftest import SCRIPT, text_of
from ui import session, site_session
from ui.errors import HubRefusedError
from ui.settings import UiSettings
from ui.site_views import CaseEntry, CasePage, ProposedStudy, Room, SitePerson, Standing, StudyInWords

DIGEST = "sha256:" + "a" * 64
STUDY = ProposedStudy(DIGEST, "awaiting", "chest", "Chest films", training_patients=120, epsilon=4.0, delta=1e-4)
STANDING = Standing("st-anna", "http://hub.test", True, False, False, False, False, 0, 0)
ROOM = Room(DIGEST, "chest", "Chest films", ["clear", "ill"], False, 2, 0, "anna", 1.9e9)
REFUSED = HubRefusedError("This picture is not shown: text is burnt into its pixels.", "Read it elsewhere.")


@dataclass
class MadeUpSite:
    """Answers as both APIs of a site do, and keeps what was sent."""

    role: str = "administrator"
    study_now: ProposedStudy = STUDY
    shown_digest: str = "sha256:" + "1" * 64
    decided: list[tuple[Any, ...]] = field(default_factory=list)
    images: list[tuple[str, int, int]] = field(default_factory=list)
    picture: bytes | HubRefusedError = b"\x89PNG"
    slices: tuple[int, ...] = (1,)

    def me(self) -> SitePerson:
        return SitePerson("anna", self.role, 2e9)

    def standing(self) -> Standing:
        return STANDING

    def studies(self) -> list[ProposedStudy]:
        return [self.study_now]

    def study(self, digest: str) -> StudyInWords:
        return StudyInWords(digest, "awaiting", {"Who must be trusted": ["<b>Nobody</b>"]}, {}, self.shown_digest)

    def decide(self, *what: Any) -> None:
        self.decided.append(what)

    def rooms(self) -> list[Room]:
        return [ROOM]

    def cases(self, _digest: str) -> list[CaseEntry]:
        return [CaseEntry("C-aaaa", 1, False), CaseEntry("C-bbbb", 1, False)]

    def case(self, code: str) -> CasePage:
        return CasePage(code, list(self.slices))

    def image(self, code: str, image: int, number: int) -> bytes:
        self.images.append((code, image, number))
        if isinstance(self.picture, HubRefusedError):
            raise self.picture
        return self.picture


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeUpSite]:
    made_up = MadeUpSite()
    monkeypatch.setattr(session, "browser_token", lambda: "wrs_token")
    monkeypatch.setattr(site_session, "browser_token", lambda: "wrs_token")
    monkeypatch.setattr(site_session, "SiteClient", lambda _http, _token: made_up)
    monkeypatch.setattr(site_session, "ReadingClient", lambda _http, _token: made_up)
    yield made_up
    st.cache_resource.clear()


def opened(page: str = "approvals", reading: str = "http://reading.test") -> AppTest:
    app = AppTest.from_file(SCRIPT, default_timeout=60)
    app.secrets.update(UiSettings("", site_url="http://site.test", reading_url=reading).as_secrets())
    app.run()
    if page != "approvals":
        app.switch_page(f"../site_pages/{page}.py").run()
    assert not app.exception
    return app


def press(app: AppTest, label: str) -> None:
    next(button for button in app.button if button.label == label).click().run()


def test_a_study_is_shown_in_words_and_words_are_no_markup(site: MadeUpSite) -> None:
    text = text_of(opened())
    assert "Approvals at st-anna" in text
    assert "&lt;b&gt;Nobody&lt;/b&gt;" in text


def test_nothing_is_decided_before_it_is_said_to_be_read(site: MadeUpSite) -> None:
    app = opened()
    assert [button.disabled for button in app.button if button.label in {"Approve", "Refuse", "Withdraw"}] == [True] * 3
    app.checkbox[0].check().run()
    press(app, "Approve")
    assert site.decided == [(DIGEST, "approved", site.shown_digest, None)]


def test_what_changed_while_it_was_read_is_not_approved(site: MadeUpSite) -> None:
    app = opened()
    app.checkbox[0].check().run()
    site.shown_digest = "sha256:" + "2" * 64
    press(app, "Approve")
    assert site.decided == []
    assert not app.checkbox[0].value


def test_an_approval_is_withdrawn_and_not_given_twice(site: MadeUpSite) -> None:
    site.study_now = replace(STUDY, state="approved", standing="approved", decided_by="anna")
    app = opened()
    app.checkbox[0].check().run()
    enabled = {button.label for button in app.button if not button.disabled}
    assert enabled & {"Approve", "Refuse", "Withdraw"} == {"Withdraw"}
    press(app, "Withdraw")
    assert site.decided == [(DIGEST, "withdrawn", None, None)]


def test_a_clinician_reads_and_is_offered_no_decision(site: MadeUpSite) -> None:
    site.role = "clinician"
    app = opened()
    assert [button.label for button in app.button] == []
    assert "Chest films" in text_of(app)


def test_a_picture_is_asked_for_once_however_often_the_page_is_redrawn(site: MadeUpSite) -> None:
    site.role, site.slices = "clinician", (9,)
    app = opened("reading_room")
    assert "data:image/png;base64,iVBORw==" in text_of(app)
    app.run()
    assert site.images == [("C-aaaa", 0, 4)]  # the middle slice first
    app.slider[0].set_value(1).run()
    assert site.images[1:] == [("C-aaaa", 0, 0)]
    assert "site_labels" not in text_of(app)


def test_a_picture_that_is_not_shown_says_why(site: MadeUpSite) -> None:
    site.role, site.picture = "clinician", REFUSED
    assert "text is burnt into its pixels" in text_of(opened("reading_room"))


def test_without_a_reading_api_the_page_says_what_to_start(site: MadeUpSite) -> None:
    assert "wardround site reading-api SITE" in text_of(opened("reading_room", reading=""))
