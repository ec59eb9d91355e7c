"""The hours in which trainings begin: nights across midnight, weekdays, time zones, and the nights clocks are set."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from site_node.errors import SettingsError
from site_node.settings import load_settings
from site_node.training_hours import WEEK, TrainHours, may_train
from tests.fakes.ordered_site import make_site

BERLIN = "Europe/Berlin"
HOUR = 3600.0


def at(text: str, zone: str = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def nights(**changes: Any) -> TrainHours:
    return TrainHours.model_validate({"hours": "20:00-06:00", "time_zone": BERLIN, **changes})


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-23T19:59:59", False), ("2026-11-23T20:00", True), ("2026-11-24T00:00", True),
        ("2026-11-24T05:59:59", True), ("2026-11-24T06:00", False), ("2026-11-24T12:00", False),
    ],
)  # fmt: skip
def test_a_night_goes_on_past_midnight_and_ends_at_its_end(moment: str, is_open: bool) -> None:
    assert nights().is_open(at(moment)) is is_open


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-27T22:00", True),  # Friday's night
        ("2026-11-28T05:00", True),  # still Friday's night, on Saturday morning
        ("2026-11-28T22:00", False), ("2026-11-29T05:00", False), ("2026-11-29T22:00", False),
        ("2026-11-30T05:00", False),  # Monday morning belongs to Sunday's night
        ("2026-11-30T20:00", True),
    ],
)  # fmt: skip
def test_a_night_belongs_to_the_day_on_which_it_begins(moment: str, is_open: bool) -> None:
    assert nights(days=["mon", "tue", "wed", "thu", "fri"]).is_open(at(moment)) is is_open


def test_hours_within_a_day_need_no_midnight() -> None:
    lunch = TrainHours(hours="12:00-13:30", time_zone=BERLIN)
    moments = ("2026-11-23T11:59", "2026-11-23T12:00", "2026-11-23T13:29", "2026-11-23T13:30")
    assert [lunch.is_open(at(m)) for m in moments] == [False, True, True, False]


def test_the_zone_that_is_named_counts_and_not_the_machine_s() -> None:
    moment = at("2026-11-23T21:00", BERLIN)  # four in the morning of the next day in Shanghai
    assert nights(time_zone="Asia/Shanghai").is_open(moment)
    assert not nights(time_zone="America/New_York").is_open(moment)  # three in the afternoon


@pytest.mark.parametrize("day", ["2026-03-28", "2026-10-24"])  # clocks are set in the night that follows
def test_the_nights_in_which_clocks_are_set_end_at_six_on_the_wall(day: str) -> None:
    begin = at(f"{day}T20:00")
    length = 10 + (1 if day.startswith("2026-10") else -1)
    states = [nights().is_open(begin + hour * HOUR) for hour in range(-1, 13)]
    assert states == [False, *[True] * length, *[False] * (13 - length)]


@given(
    st.integers(0, 366 * 24 * 60),
    st.tuples(st.integers(0, 1439), st.integers(0, 1439)).filter(lambda pair: pair[0] != pair[1]),
    st.sets(st.sampled_from(WEEK), min_size=1),
    st.sampled_from([BERLIN, "Asia/Shanghai", "America/St_Johns"]),
)
def test_they_open_when_it_is_said_and_not_before(
    minutes: int, bounds: tuple[int, int], days: set[str], zone: str
) -> None:
    text = "-".join(f"{minute // 60:02d}:{minute % 60:02d}" for minute in bounds)
    hours = TrainHours.model_validate({"hours": text, "days": sorted(days), "time_zone": zone})
    now = (datetime(2026, 1, 1, tzinfo=ZoneInfo(zone)) + timedelta(minutes=minutes)).timestamp()
    opens_at = hours.opens_at(now)
    assert now <= opens_at <= now + 8 * 24 * HOUR
    # in the hour that a spring night lacks, a time of day stands for the same moment an hour later
    assert hours.is_open(opens_at) or hours.is_open(opens_at + HOUR)
    if opens_at > now:
        assert not hours.is_open(now)
        assert not any(hours.is_open(now + part * (opens_at - now) / 50 - 1) for part in range(1, 51))


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("20-06", "hours"), ("24:00-06:00", "hours"), ("20:00-20:00", "whole day"), (7, "train_hours"),
        ({"hours": "20:00-06:00", "time_zone": "Mars/Olympus"}, "no such time zone"),
        ({"hours": "20:00-06:00", "days": []}, "days"), ({"hours": "20:00-06:00", "days": ["funday"]}, "days"),
        ({"hours": "20:00-06:00", "weekends": True}, "weekends"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_with_the_key(tmp_path: Path, value: Any, word: str) -> None:
    settings = make_site(tmp_path)
    with settings.paths.configuration.open("a", encoding="utf-8") as file:
        file.write(yaml.safe_dump({"train_hours": value}))
    with pytest.raises(SettingsError, match=word):
        load_settings(settings.paths.root)


def test_both_ways_of_writing_them_are_read(tmp_path: Path) -> None:
    settings = make_site(tmp_path)
    text = settings.paths.configuration.read_text(encoding="utf-8")
    for value in ("20:00-06:00", {"hours": "20:00-06:00", "days": list(WEEK)}):
        settings.paths.configuration.write_text(text + yaml.safe_dump({"train_hours": value}), encoding="utf-8")
        assert load_settings(settings.paths.root).train_hours == TrainHours(hours="20:00-06:00")


def test_without_hours_a_training_may_always_begin() -> None:
    assert may_train(None, 0.0)


def test_a_path_is_no_time_zone() -> None:
    with pytest.raises(ValidationError):
        TrainHours(hours="20:00-06:00", time_zone="../../etc/passwd")
