"""Each page for each role, against a fake hub on a real port."""

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.fakes import fake_hub_data as data
from tests.fakes.fake_hub import ROLES, FakeHub
from tests.ui.conftest import OpenPage, text_of
from ui import hub_client
from ui.wording import size

READABLE = ["overview", "rounds", "validate_models", "versions", "audit"]
OWN = {"ada": ["launch_study"], "claire": [], "otto": ["people"]}


def assert_clean(app: AppTest) -> None:
    assert not app.exception, [element.value for element in app.exception]
    assert not app.error
    assert "wr-note-box bad" not in text_of(app)


@pytest.mark.parametrize(("name", "page"), [(name, page) for name in ROLES for page in [*READABLE, *OWN[name]]])
def test_every_role_opens_every_page_it_may_see(open_page: OpenPage, name: str, page: str) -> None:
    app = open_page(name, page)
    assert_clean(app)
    assert '<div class="wr-head">' in text_of(app)
    assert name in text_of(app)


@pytest.mark.parametrize(("name", "page"), [("claire", "launch_study"), ("otto", "launch_study"), ("ada", "people")])
def test_a_page_of_another_role_is_not_in_the_navigation(open_page: OpenPage, name: str, page: str) -> None:
    with pytest.raises(ValueError, match="Could not find a navigation page"):
        open_page(name, page)


def test_nobody_sees_anything_without_signing_in(open_page: OpenPage, hub: FakeHub) -> None:
    app = open_page(None)
    assert "You are not signed in" in text_of(app)
    assert hub.calls == []


def test_an_expired_token_leads_back_to_signing_in(open_page: OpenPage, hub: FakeHub) -> None:
    app = open_page("ada")
    hub.revoked.add("token-of-ada")
    app.run()
    assert "/sign-out?notice=expired" in text_of(app)
    assert not app.exception


def test_a_hub_that_is_away_is_said_in_one_sentence(open_page: OpenPage, hub: FakeHub) -> None:
    hub.url = "http://127.0.0.1:9"
    app = open_page("ada")
    assert "does not answer" in text_of(app)
    assert not app.exception


@pytest.mark.parametrize("page", READABLE)
def test_an_empty_hub_says_what_will_be_there(open_page: OpenPage, hub: FakeHub, page: str) -> None:
    hub.empty = True
    app = open_page("claire", page)
    assert_clean(app)
    assert "wr-empty" in text_of(app)


def test_the_overview_counts_hospitals_and_studies(open_page: OpenPage) -> None:
    text = text_of(open_page("claire"))
    assert "3 of 4 hospitals online, 1 study running, 1 waiting for hospitals." in text
    assert "ε 5.66 of 8" in text
    assert "no differential privacy" in text


def test_in_round_zero_one_hospital_is_asked_to_build_the_first_version(open_page: OpenPage) -> None:
    history = text_of(open_page("claire", "rounds")).split("All rounds")[1]
    first = history.split("<tr")[-1]
    assert '<td class="num">0</td>' in first
    assert ">1 of 1<" in first
    assert ">3 of 3<" in history


def test_a_card_tells_the_update_from_all_that_the_hospital_sent(open_page: OpenPage) -> None:
    text = text_of(open_page("claire", "rounds"))
    update, sent = round(data.WEIGHTS_BYTES * 0.92), round(data.WEIGHTS_BYTES * 0.93)
    assert f"<dt>update</dt><dd>{size(update)}</dd>" in text
    assert f"<dt>sent in all</dt><dd>{size(sent)}</dd>" in text


def test_why_a_round_failed_is_said_once_and_not_as_every_hospital_s_fault(open_page: OpenPage, hub: FakeHub) -> None:
    hub.failed_round = "5 sites sent shares of their masks; 6 are needed. Nothing was opened."
    text = text_of(open_page("claire", "rounds"))
    assert "northgate: 5 sites" not in text
    assert "The round ended before its answer" in text
    assert f"({hub.failed_round})" in text


def test_an_epsilon_of_whole_hospitals_is_called_so(open_page: OpenPage, hub: FakeHub) -> None:
    assert "Privacy spent, per patient" in text_of(open_page("claire", "rounds"))
    hub.unit = "site"
    assert "Privacy spent, per hospital" in text_of(open_page("claire", "rounds"))
    assert '<th class="num">ε per hospital</th>' in text_of(open_page("claire", "versions"))


def test_a_hospital_s_share_that_travelled_under_masks_is_not_guessed(open_page: OpenPage, hub: FakeHub) -> None:
    assert "%</td>" in text_of(open_page("claire", "versions"))
    hub.terms = {"secure_aggregation": {"method": "masking"}}
    text = text_of(open_page("claire", "versions"))
    assert ">hidden</td>" in text
    assert "%</td>" not in text
    assert "how much each weighs, the hub cannot see" in text
    hub.terms = {"secure_aggregation": {"method": "masking"}, "strategy": {"weighting": "equal"}}
    assert "%</td>" in text_of(open_page("claire", "versions"))


def test_opening_a_study_from_the_overview_shows_its_rounds(open_page: OpenPage) -> None:
    app = open_page("claire")
    app.button(key="open-pneumonia-pilot").click().run()
    assert_clean(app)
    assert app.selectbox[0].value == "pneumonia-pilot"
    assert "No differential privacy" in text_of(app)


def test_rounds_say_who_is_late(open_page: OpenPage) -> None:
    text = text_of(open_page("ada", "rounds"))
    assert "deadline passed" in text
    assert text.count(">late</span>") == 2
    assert "st-anna: not enough memory there" in text
    assert "held-out patients: no DP" in text
    assert "167" in text
    assert "about 167" not in text


def test_rounds_say_loudly_who_trained_on_a_fraction_of_the_patients(open_page: OpenPage) -> None:
    text = text_of(open_page("claire", "rounds"))
    assert "Round 3 was trained on a fraction of the patients" in text
    assert "at most 43 of 67, below 90%" in text
    assert text.count(">(on a fraction)</span>") == 1
    assert "<dt>patients used</dt><dd>about 166 of 167, 143 to 189</dd>" in text


def test_where_a_study_asks_for_no_number_a_card_says_so(open_page: OpenPage) -> None:
    app = open_page("ada", "rounds")
    app.selectbox[0].set_value("pneumonia-pilot").run()
    assert "<dt>patients used</dt><dd>not asked for</dd>" in text_of(app)


def test_a_proposed_study_shows_each_hospital_answer(open_page: OpenPage) -> None:
    app = open_page("ada", "rounds")
    app.selectbox[0].set_value("effusion-cxr").run()
    assert_clean(app)
    text = text_of(app)
    assert "Waiting for hospitals" in text
    assert "about 167 training patients" in text  # the study noises its hospitals' numbers
    assert [button.label for button in app.button if button.disabled] == ["Start now"]
    assert "at most 20 min, with 167 stand-ins for patients" in text  # one hospital told of its readiness
    assert "no GPU, too little memory" in text
    assert "in 70 hours of the week" in text
    assert "the table lacks a column of the study" in text


def test_an_ended_study_without_rounds_waits_for_nobody(
    open_page: OpenPage, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = data.studies(hub.now)
    ended = [{**study, "state": "failed"} if study["name"] == "effusion-cxr" else study for study in known]
    monkeypatch.setattr(data, "studies", lambda _now: ended)
    app = open_page("ada", "rounds")
    app.selectbox[0].set_value("effusion-cxr").run()
    text = text_of(app)
    assert not app.exception
    assert "What the hospitals answered" in text
    assert "The study ended before it answered" in text
    assert "Waiting for hospitals" not in text


def test_a_researcher_can_stop_a_study(open_page: OpenPage, hub: FakeHub) -> None:
    app = open_page("ada", "rounds")
    app.button(key="stop-for-good").click().run()
    assert_clean(app)
    assert any(method == "POST" and path.endswith("/stop") for method, path in hub.calls)


def test_others_cannot_steer_a_study(open_page: OpenPage) -> None:
    assert [button.label for button in open_page("claire", "rounds").button] == []


def test_a_clinician_records_a_decision_with_reasons(open_page: OpenPage, hub: FakeHub) -> None:
    app = open_page("claire", "validate_models")
    assert "Held-out patients: no DP" in text_of(app)
    app.text_area[0].set_value("Ranks our patients well.")
    next(button for button in app.button if button.label == "Accept").click().run()
    assert_clean(app)
    assert [(d["person"], d["decision"], d["comment"]) for d in hub.decisions] == [
        ("claire", "accepted", "Ranks our patients well.")
    ]
    assert "Ranks our patients well." in text_of(app)


def test_a_decision_needs_reasons(open_page: OpenPage, hub: FakeHub) -> None:
    app = open_page("claire", "validate_models")
    next(button for button in app.button if button.label == "Reject").click().run()
    assert "Please say why" in text_of(app)
    assert hub.decisions == []


def test_a_researcher_cannot_decide(open_page: OpenPage) -> None:
    assert [button.label for button in open_page("ada", "validate_models").button] == []


def test_the_validation_of_one_split_is_shown_alone(open_page: OpenPage) -> None:
    app = open_page("claire", "validate_models")
    everyone = text_of(app)
    app.button_group[0].set_value("test").run()
    assert_clean(app)
    assert text_of(app) != everyone


def test_where_counts_are_summed_under_masks_the_page_says_why_no_hospital_is_shown(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = data.validation

    def masked(study: dict[str, Any], number: int) -> dict[str, Any]:
        return {"pooled": shown(study, number)["pooled"] | {"counts": "summed under masks"}, "sites": []}

    assert "Pooled figures only" not in text_of(open_page("claire", "validate_models"))
    monkeypatch.setattr(data, "validation", masked)
    app = open_page("claire", "validate_models")
    assert_clean(app)
    assert "Pooled figures only" in text_of(app)
    assert "holds no single hospital" in text_of(app)
    app.button_group[0].set_value("test").run()
    assert_clean(app)


def test_figures_of_personal_models_are_called_so(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Personal models" not in text_of(open_page("claire", "validate_models"))
    shown = data.studies

    def personal(now: float) -> list[dict[str, Any]]:
        terms = {"personal": {"keep": ["normalisation"], "ditto": None, "judged": "own"}}
        return [{**study, "study": {**study["study"], **terms}} for study in shown(now)]

    monkeypatch.setattr(data, "studies", personal)
    app = open_page("claire", "validate_models")
    assert_clean(app)
    assert "Personal models" in text_of(app)


def test_a_version_names_the_hospital_that_trained_on_a_fraction(open_page: OpenPage) -> None:
    app = open_page("claire", "versions")
    assert text_of(app).count("(on a fraction of its patients)") == 1


def test_versions_name_parents_and_offer_digests_to_copy(open_page: OpenPage) -> None:
    text = text_of(open_page("claire", "versions"))
    assert 'data-copy="sha256:' in text
    assert "built from the seed" in text


def test_verifying_the_log_says_that_it_is_whole(open_page: OpenPage) -> None:
    app = open_page("otto", "audit")
    app.button[0].click().run()
    assert "The log is whole" in text_of(app)


def test_a_broken_log_is_said_loudly_with_the_remedy(open_page: OpenPage, hub: FakeHub) -> None:
    hub.audit_problem = "Entry 17 was changed."
    app = open_page("otto", "audit")
    app.button[0].click().run()
    assert "Entry 17 was changed." in text_of(app)
    assert "keep a copy of the database" in text_of(app)


def test_the_log_is_filtered_by_word_and_actor(open_page: OpenPage) -> None:
    app = open_page("otto", "audit")
    app.text_input[0].set_value("clinician").run()
    assert "1 entry" in text_of(app)
    app.multiselect[1].set_value(["hub"]).run()
    assert "Nothing matches" in text_of(app)


def test_a_log_longer_than_what_is_fetched_begins_with_its_newest_lines(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "AUDIT_PAGE_ENTRIES", 4)
    monkeypatch.setattr(hub_client, "AUDIT_MOST_ENTRIES", 10)
    last = data.audit(1e9)[-1]["number"]
    text = text_of(open_page("otto", "audit"))
    assert f'<span class="wr-quiet">{last}</span>' in text
    assert f'<span class="wr-quiet">{last - 9}</span>' in text
    assert f'<span class="wr-quiet">{last - 10}</span>' not in text
    assert "10 entries" in text
    assert "out of the newest 10 lines of the log" in text


def test_studies_are_shown_with_their_short_name(open_page: OpenPage) -> None:
    assert '<span class="wr-quiet">effusion-cxr</span>' in text_of(open_page("claire"))
    assert "(effusion-cxr)" in "".join(open_page("claire", "rounds").selectbox[0].options)


def test_the_form_says_beforehand_that_reasons_are_needed(open_page: OpenPage) -> None:
    assert open_page("claire", "validate_models").text_area[0].label == "Your reasons (needed)"


def test_an_operator_invites_a_hospital_and_sees_the_code_once(open_page: OpenPage, hub: FakeHub) -> None:
    app = open_page("otto", "people")
    next(field for field in app.text_input if field.label == "Hospital's name").set_value("lakeside")
    next(button for button in app.button if button.label == "Make an invitation").click().run()
    assert_clean(app)
    assert hub.invited == ["lakeside"]
    assert "k7f3-9dqx-m2ha-w4tz" in text_of(app)
    app.run()
    assert "k7f3-9dqx-m2ha-w4tz" not in text_of(app)


def test_an_operator_adds_a_person(open_page: OpenPage, hub: FakeHub) -> None:
    app = open_page("otto", "people")
    by_label = {field.label: field for field in app.text_input}
    by_label["Name"].set_value("rosa")
    by_label["First password"].set_value("a long password")
    next(button for button in app.button if button.label == "Add").click().run()
    assert_clean(app)
    assert [person["name"] for person in hub.people] == ["rosa"]
    assert "rosa" in text_of(app)


def test_markup_from_the_hub_is_shown_as_text(open_page: OpenPage, hub: FakeHub) -> None:
    study = dict(hub.studies()[0]) | {"name": "x", "digest": "sha256:0", "title": "<script>alert(1)</script>"}
    hub.proposed.append(study)
    text = text_of(open_page("claire"))
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text
