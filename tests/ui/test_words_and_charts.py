"""Wording, markup, settings, views and figures: pure functions, by cases."""

import re
import socket

import httpx
import pytest

from tests.fakes import fake_hub_data as data
from tests.fakes.fake_hub import FakeHub
from ui import charts, markup, wording
from ui.errors import HubAnswerError, HubRefusedError, PortError, SignedOutError
from ui.hub_client import HubClient, open_http
from ui.pages.audit import details_markup
from ui.server import listen, streamlit_options
from ui.settings import UiSettings
from ui.views import Metrics, Round, RoundSite


@pytest.mark.parametrize(
    ("value", "words"), [(None, "—"), (0, "0 B"), (950, "950 B"), (1_184_320, "1.2 MB"), (250_000_000, "250 MB")]
)
def test_sizes(value: int | None, words: str) -> None:
    assert wording.size(value) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0.4 s"), (59, "59 s"), (600, "10 min"), (7200, "2 h"), (260000, "3 days"), (None, "—")],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert wording.duration(seconds) == words


@pytest.mark.parametrize(("value", "words"), [(1e-5, "10⁻⁵"), (2e-5, "2·10⁻⁵"), (1e-4, "10⁻⁴"), (0.025, "2.5·10⁻²")])
def test_small_numbers(value: float, words: str) -> None:
    assert wording.power_of_ten(value) == words


def test_a_hidden_count_is_shown_as_below_five() -> None:
    assert wording.count(None) == "<5"
    assert wording.count(12034) == "12\u202f034"


def test_a_noised_count_is_about_so_many_and_a_hidden_one_stays_hidden() -> None:
    assert wording.told_count(167, noised=True) == "about 167"
    assert wording.told_count(167, noised=False) == "167"
    assert wording.told_count(None, noised=True) == "<5"


def test_clocks_are_in_the_reader_time_zone() -> None:
    assert wording.clock(0, "Asia/Shanghai") == "1 Jan 1970, 08:00"
    assert wording.clock(0) == "1 Jan 1970, 00:00 UTC"
    assert wording.clock(0, "Not/AZone") == "1 Jan 1970, 00:00"


def test_every_reason_of_the_protocol_has_words() -> None:
    from protocol.messages import Activity, Reason

    for reason in [*Reason, *Activity]:
        words = wording.words_of(reason.value)
        assert "-" not in reason.value or words != reason.value.replace("-", " ")


def test_markup_escapes_what_it_is_given() -> None:
    for made in (markup.pill("<b>"), markup.head("<b>"), markup.note("bad", "<b>"), markup.digest('"><b>')):
        assert "<b>" not in made.replace("<b>&lt;b&gt;</b>", "")


def test_a_hospital_keeps_its_colour_whatever_the_order() -> None:
    assert markup.colour_of("a", ["b", "a"]) == markup.colour_of("a", ["a", "b"])
    assert markup.colour_of("a", ["a", "b"]) != markup.colour_of("b", ["a", "b"])


def test_the_forest_has_a_row_per_hospital_and_one_for_all() -> None:
    metrics = Metrics(auc=0.8, auc_low=0.7, auc_high=0.9, patients=40)
    figure = charts.forest(metrics, [("a", metrics), ("b", Metrics())], ["a", "b"])
    assert len(figure.data) == 3
    assert "one class only" in figure.layout.annotations[1].text


def test_figures_are_drawn_from_nothing() -> None:
    assert charts.auc_by_round([], [], []).layout.height
    assert charts.calibration(None).layout.height


def test_one_point_of_the_auc_stands_at_its_round_and_not_in_the_middle_of_nothing() -> None:
    assert charts.auc_by_round([], [], []).layout.xaxis.range == (-charts.ROOM, 1 + charts.ROOM)
    assert charts.lineage([], None, []).layout.height


@pytest.mark.parametrize("rounds", [1, 2, 30])
def test_round_axes_count_in_whole_rounds(rounds: int) -> None:
    spent = charts.epsilon_by_round([*range(rounds + 1)], [0.1] * (rounds + 1), 8.0, rounds)
    for figure in (spent, charts.auc_by_round([], [], []), charts.traffic_by_round([]), charts.lineage([], None, [])):
        axis = figure.layout.xaxis
        assert (axis.tick0, axis.tickformat, axis.dtick % 1) == (0, "d", 0)
        assert axis.dtick >= 1


def test_audit_details_are_words_times_and_short_digests_and_nothing_empty() -> None:
    digest = "sha256:" + "ab" * 32
    details = {
        "created_at": 1.8e9,
        "reason": None,
        "parents": [digest],
        "privacy": {"epsilon": 1.0234567, "delta": 1e-5, "note": ""},
        "participants": [{"site": "<anna>", "weight": 10.0}, {"site": "bela", "weight": 30.0}],
        "sites": ["anna", "bela"],
        "ok": True,
        "nothing": {},
    }
    shown = details_markup(details)
    words = " ".join(re.sub("<[^>]*>", " ", shown).split())
    assert words == (
        "created at 15 Jan 2027, 08:00 UTC parents ababababab privacy epsilon 1.02346 delta 1e-05 "
        "participants site &lt;anna&gt; weight 10 site bela weight 30 sites anna, bela ok yes"
    )
    assert f'data-copy="{digest}"' in shown


def test_the_cookie_belongs_to_one_hub() -> None:
    assert UiSettings("http://a").cookie_name != UiSettings("http://b").cookie_name
    assert UiSettings.from_secrets(UiSettings("http://a").as_secrets()) == UiSettings("http://a")


def test_streamlit_is_told_to_send_no_statistics_and_to_open_nothing() -> None:
    options = streamlit_options(UiSettings("http://a", port=8600))
    assert options["browser.gatherUsageStats"] is False
    assert options["server.headless"] is True
    assert options["client.toolbarMode"] == "minimal"
    assert options["server.port"] == 8600


def test_a_taken_port_moves_on_unless_strict() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with listen("127.0.0.1", port, strict=False) as found:
            assert found.getsockname()[1] > port
        with pytest.raises(PortError, match="is taken"):
            listen("127.0.0.1", port, strict=True)


def test_a_refusal_keeps_the_hub_sentence_and_remedy(hub: FakeHub) -> None:
    with open_http(hub.url) as http:
        with pytest.raises(HubRefusedError, match="no study of this digest") as caught:
            HubClient(http, "token-of-ada").study("sha256:0")
        assert caught.value.remedy
        with pytest.raises(SignedOutError):
            HubClient(http, "token-of-nobody").me()


def test_an_answer_of_another_version_is_noticed() -> None:
    with (
        httpx.Client(
            transport=httpx.MockTransport(lambda _: httpx.Response(200, json={"nom": "ada"})), base_url="http://h"
        ) as http,
        pytest.raises(HubAnswerError, match="name"),
    ):
        HubClient(http, "t").me()


def test_the_audit_log_is_fetched_page_by_page(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.hub_client.AUDIT_PAGE_ENTRIES", 10)
    with open_http(hub.url) as http:
        log = HubClient(http, "token-of-otto").audit()
    assert [entry.number for entry in log.entries] == [entry["number"] for entry in data.audit(hub.now)]


def test_a_survival_study_is_drawn_by_its_concordance_without_an_interval() -> None:
    metrics = Metrics(concordance=0.78, patients=50, positives=20)
    assert (metrics.score, metrics.score_name) == (0.78, "Concordance")
    figure = charts.forest(metrics, [("north", Metrics(patients=4))], ["north"])
    assert figure.layout.xaxis.title.text == "Concordance index"
    assert any(trace.x == (0.78,) for trace in figure.data)
    assert "<b>0.780</b>  <span" in "".join(note.text for note in figure.layout.annotations)


def test_a_study_of_images_is_drawn_by_its_auc() -> None:
    metrics = Metrics(auc=0.9, auc_low=0.8, auc_high=0.95)
    assert (metrics.score, metrics.score_name) == (0.9, "AUC")
    assert charts.forest(metrics, [], []).layout.xaxis.title.text == "AUC (95 % interval)"


def test_a_hospital_s_rate_is_drawn_round_by_round_and_is_one_before_the_first_factor() -> None:
    def of(number: int, factor: float | None) -> Round:
        site = RoundSite("north", train_state="accepted", rate_factor=factor)
        return Round(number, "complete", number, 0.0, None, None, None, None, None, [site])

    figure = charts.rates_by_round([of(0, None), of(1, None), of(2, 0.5)], ["north"], ["north"])
    (line,) = figure.data
    assert (list(line.x), list(line.y)) == ([1, 2], [1.0, 0.5])
    low, high = figure.layout.yaxis.range
    assert 10**low < 0.5 < 1.25 < 10**high
    assert charts.rates_by_round([], [], []).data == ()
