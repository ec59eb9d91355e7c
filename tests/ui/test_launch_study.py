"""The launch page: a form from the hub's schema, the price of privacy, a proposal."""

import yaml
from streamlit.testing.v1 import AppTest

from tests.fakes.fake_hub import FakeHub
from tests.ui.conftest import OpenPage, text_of


def press(app: AppTest, start: str) -> None:
    next(button for button in app.button if button.label.startswith(start)).click().run()


def test_the_form_starts_with_a_study_that_the_hub_accepts(open_page: OpenPage) -> None:
    app = open_page("ada", "launch_study")
    text = text_of(app)
    assert "Noise multiplier" in text
    assert "within <b>ε = 8</b> at δ = 10⁻⁵" in text
    assert [button.label for button in app.button] == ["Propose to 4 hospitals"]


def test_the_price_follows_the_form(open_page: OpenPage) -> None:
    app = open_page("ada", "launch_study")
    app.number_input(key="field-privacy.epsilon").set_value(3.0).run()
    assert "within <b>ε = 3</b>" in text_of(app)


def test_switching_privacy_off_is_said(open_page: OpenPage) -> None:
    app = open_page("ada", "launch_study")
    next(toggle for toggle in app.toggle if toggle.label.startswith("Differential privacy")).set_value(False).run()
    assert "No differential privacy" in text_of(app)
    assert "epsilon: null" in text_of(app)


def test_choosing_masks_brings_out_what_they_need_and_leads_to_a_study_that_the_hub_takes(open_page: OpenPage) -> None:
    app = open_page("ada", "launch_study")
    app.selectbox(key="field-secure_aggregation.method").select("masking").run()
    assert "secure_aggregation.maximum_sites: required" in text_of(app)
    brought_out = [number.key for number in app.number_input if number.key not in inside_expanders(app)]
    assert {"field-secure_aggregation.maximum_sites", "field-secure_aggregation.maximum_weight"} <= set(brought_out)
    app.number_input(key="field-secure_aggregation.maximum_sites").set_value(8).run()
    app.number_input(key="field-secure_aggregation.maximum_weight").set_value(500).run()
    app.number_input(key="field-participants.minimum_sites").set_value(4).run()
    app.multiselect(key="field-transport.upload").set_value([]).run()
    assert not app.exception
    assert [button.label for button in app.button] == ["Propose to 4 hospitals"]


def inside_expanders(app: AppTest) -> list[str | None]:
    return [number.key for expander in app.expander for number in expander.number_input]


def test_a_site_level_study_promises_it_to_hospitals(open_page: OpenPage) -> None:
    app = open_page("ada", "launch_study")
    app.selectbox(key="field-privacy.mechanism").select("site-level").run()
    app.selectbox(key="field-privacy.unit").select("site").run()
    app.selectbox(key="field-strategy.weighting").select("equal").run()
    app.number_input(key="field-participants.minimum_sites").set_value(10).run()
    text = text_of(app)
    assert "whether a hospital, with all its patients, took part stays hidden" in text, text


def test_an_illegal_study_is_refused_with_the_reason_and_cannot_be_proposed(open_page: OpenPage) -> None:
    app = open_page("ada", "launch_study")
    app.number_input(key="field-privacy.delta").set_value(0.01).run()
    text = text_of(app)
    assert "One thing to correct" in text
    assert "privacy.delta: 0.01 is above" in text
    assert not app.exception
    assert [button.label for button in app.button] == []


def test_proposing_sends_exactly_what_is_shown_and_follows_the_study(open_page: OpenPage, hub: FakeHub) -> None:
    app = open_page("ada", "launch_study")
    app.text_input(key="field-name").set_value("my-study").run()
    press(app, "Propose")
    assert not app.exception
    (study,) = hub.proposed
    assert study["name"] == "my-study"
    assert study["study"]["privacy"]["epsilon"] == 8
    assert [site["site"] for site in study["sites"]] == ["hillcrest", "northgate", "riverside", "st-anna"]
    assert app.selectbox[0].value == "my-study"
    assert "Waiting for hospitals" in text_of(app)


def test_a_pasted_file_is_checked_like_the_form(open_page: OpenPage, hub: FakeHub) -> None:
    app = open_page("ada", "launch_study")
    app.button_group[0].set_value("Use a YAML file").run()
    assert "As soon as there is a study" in text_of(app)
    study = {
        "name": "pasted",
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "resnet"},
        "rounds": 3,
        "privacy": {"epsilon": None},
    }
    app.text_area[0].set_value(yaml.safe_dump(study)).run()
    press(app, "Propose")
    assert [found["name"] for found in hub.proposed] == ["pasted"]


def test_a_pasted_text_that_is_no_study_names_each_fault(open_page: OpenPage) -> None:
    app = open_page("ada", "launch_study")
    app.button_group[0].set_value("Use a YAML file").run()
    app.text_area[0].set_value("name: x\nround: 3\n").run()
    text = text_of(app)
    assert "Not usable yet" in text
    assert "round: unknown key" in text
    assert not app.exception
