"""The hospital's own pages and its two APIs are of one mind: every answer is understood, and the two tokens agree."""

from pathlib import Path

import pytest

from site_node.api.app import make_app as make_site_app
from site_node.api.reading_tokens import publish_readers
from site_node.api.roles import GATE_PAGES, PERMITTED, READING_PAGES, Role
from site_node.api.tokens import add_token, open_tokens, reading_token
from site_node.reading.app import make_app as make_reading_app
from tests.fakes.api_caller import http_to
from tests.fakes.dicom import make_hospital
from tests.fakes.gated_site import PERMISSIVE_POLICY, GatedSite, study_of
from tests.fakes.reading_site import ReadingSite
from ui import site_client
from ui.app import SITE_PAGES
from ui.errors import HubRefusedError, SignedOutError
from ui.site_client import ReadingClient, SiteClient

PERSON_DECIDES = PERMISSIVE_POLICY.replace("approval: automatic", "approval: person")


@pytest.fixture
def gated(tmp_path: Path) -> GatedSite:
    site = GatedSite.make(tmp_path / "gated", PERSON_DECIDES)
    site.propose(study_of())
    site.sweep()
    site.count_cohort(study_of())
    site.sweep()
    return site


def site_of(gated: GatedSite, role: Role) -> SiteClient:
    with open_tokens(gated.paths) as tokens:
        token = add_token(tokens, f"some-{role}", role, 90, gated.now)
    return SiteClient(http_to(make_site_app(gated.settings, lambda: gated.now)), token)


def readers_of(site: ReadingSite, role: Role) -> ReadingClient:
    return ReadingClient(http_to(make_reading_app(site.settings, lambda: site.now)), site.token(role))


def test_pages_and_site_make_the_same_reading_token() -> None:
    assert site_client.reading_token("wrs_some token") == reading_token("wrs_some token")


def test_the_pages_understand_every_answer_of_the_site_s_api(gated: GatedSite) -> None:
    site = site_of(gated, "administrator")
    assert (site.me().name, site.standing().site) == ("some-administrator", "st-anna")
    [study] = site.studies()
    page = site.study(study.digest)
    assert (study.state, page.summary.keys() >= {"Who must be trusted"}) == ("awaiting", True)
    site.decide(study.digest, "approved", page.shown_digest, 30)
    gated.sweep()
    assert site.studies()[0].decided_by == "some-administrator"
    gated.give(gated.task(study_of()))
    assert [task.state for task in site.tasks()] == ["accepted"]
    budget = site.budget()
    assert [charged.study_digest for charged in budget.studies] == [study.digest]
    assert {entry.kind for entry in site.egress()} >= {"wardround.approval/1"}
    assert all(entry.size > 0 for entry in site.egress())
    assert {finding.part for finding in site.doctor()} == {"settings", "gate", "worker", "agent", "ingest"}


def test_the_pages_understand_every_answer_of_the_reading_api(tmp_path: Path, gated: GatedSite) -> None:
    images = make_hospital(tmp_path / "images", 20, size=32, split=lambda n: "test" if n > 9 else "train").folder
    node = ReadingSite.make(tmp_path, images, check=lambda *_: None)
    study = site_of(gated, "administrator").study(study_of().digest)
    administrator, clinician = readers_of(node, "administrator"), readers_of(node, "clinician")
    assert administrator.index().found["patients"] == 20
    assert administrator.readiness(study.digest).state == "none"
    assert administrator.open_room(study).cases == 10
    [room] = clinician.rooms()
    code = clinician.cases(room.study_digest)[0].case
    assert clinician.case(code).slices == [1, 1]
    assert clinician.image(code, 0, 0).startswith(b"\x89PNG")
    clinician.give_reading(code, [room.classes[0]], 4)
    given = clinician.case(code)
    assert given.reading is not None
    assert (given.reading.labels, len(given.site_labels or [])) == ([room.classes[0]], 1)
    auditor = readers_of(node, "auditor")
    assert [one.case_code for one in auditor.readings(room.study_digest)] == [code]
    assert [(view.case_code, view.slice) for view in auditor.views()] == [(code, 0)]


def test_a_refusal_keeps_the_site_s_own_sentence_and_an_ended_token_signs_out(gated: GatedSite) -> None:
    clinician = site_of(gated, "clinician")
    with pytest.raises(HubRefusedError, match="not for the role clinician"):
        clinician.budget()
    gated.now += 91 * 86400
    with pytest.raises(SignedOutError, match="No token that counts"):
        clinician.studies()


def test_the_older_tokens_of_a_site_open_its_api_and_not_the_reading_api(gated: GatedSite) -> None:
    with open_tokens(gated.paths) as tokens:
        token = add_token(tokens, "old", "auditor", 90, gated.now)
        tokens.execute("ALTER TABLE tokens DROP COLUMN reading_digest")
    with open_tokens(gated.paths) as tokens:
        publish_readers(gated.paths, tokens, gated.now)
    assert SiteClient(http_to(make_site_app(gated.settings, lambda: gated.now)), token).me().role == "auditor"
    reading = ReadingClient(http_to(make_reading_app(gated.settings, lambda: gated.now)), token)
    with pytest.raises(SignedOutError):
        reading.rooms()


def test_the_gate_leaves_the_list_of_readers_where_it_is(gated: GatedSite) -> None:
    with open_tokens(gated.paths) as tokens:
        add_token(tokens, "clara", "clinician", 90, gated.now)
        publish_readers(gated.paths, tokens, gated.now)
    before = (gated.paths.orders / "readers.list").read_bytes()
    gated.propose(study_of(name="another"))
    gated.sweep()
    assert (gated.paths.orders / "readers.list").read_bytes() == before


def test_a_page_is_in_the_navigation_of_exactly_those_whom_the_site_lets_read_it() -> None:
    needs = {"approvals": "studies", "reading_room": "rooms"}
    names = {entry.script: set(entry.roles) for entry in SITE_PAGES}
    assert {needs.get(name, name) for name in names} <= {*GATE_PAGES, *READING_PAGES}
    permitted = {str(page): set(roles) for page, roles in PERMITTED.items()}
    assert names == {name: permitted[needs.get(name, name)] for name in names}
