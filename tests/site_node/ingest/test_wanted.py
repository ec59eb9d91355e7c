"""Which imaging studies are asked for: lists as hospitals write them, dates, and criteria where the PACS is silent."""

from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.cohort_terms import Cohort
from site_node.errors import SettingsError
from site_node.ingest.answers import FoundSeries, FoundStudy
from site_node.ingest.pace import Spacing, seconds_until_open
from site_node.ingest.planning import scope_of
from site_node.ingest.wanted import Wanted, date_range, halves, read_accessions
from site_node.pacs_settings import PacsSettings

FOUND = FoundStudy("1.2", None, ("CT",), "20260110", None, None, None)


def listed(path: Path, text: str, encoding: str = "utf-8") -> list[tuple[int, str]]:
    path.write_text(text, encoding=encoding)
    return [(entry.line, entry.accession) for entry in read_accessions(path)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A1\nA2\n\n A3 \nA1\n", [(1, "A1"), (2, "A2"), (4, "A3")]),
        ("accession_number\nA1\nA2", [(2, "A1"), (3, "A2")]),
        ("Name;Accession Number;Note\nMüller;A1;x\n;A2;\n;;\n", [(2, "A1"), (3, "A2")]),
        ('\ufeff"AccessionNumber","x"\r\n"A1","1"\r\n', [(2, "A1")]),
    ],
)
def test_a_list_is_read_however_it_was_saved(tmp_path: Path, text: str, expected: list[tuple[int, str]]) -> None:
    assert listed(tmp_path / "list.csv", text) == expected
    assert listed(tmp_path / "list.csv", text.lstrip("\ufeff"), "latin-1") == expected


def test_a_number_that_a_query_reads_otherwise_is_not_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("A1\nA*\nA?\nA\\B\n12345678901234567\n", encoding="utf-8")
    assert [entry.fault is None for entry in read_accessions(path)] == [True, False, False, False, False]


@pytest.mark.parametrize("text", ["", "\n\n", "name,patient\nx,y\n"])
def test_a_list_without_numbers_says_so_and_quotes_nothing(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="accession") as raised:
        listed(tmp_path / "list.csv", text)
    assert "patient" not in str(raised.value)


def test_a_question_is_asked_for_each_modality_and_month() -> None:
    wanted = Wanted(Cohort(modality=["ct", "DX"]), since=date(2026, 1, 1), until=date(2026, 2, 15))
    assert [(q["ModalitiesInStudy"], q["StudyDate"]) for q in wanted.questions()] == [
        ("CT", "20260101-20260131"),
        ("DX", "20260101-20260131"),
        ("CT", "20260201-20260215"),
        ("DX", "20260201-20260215"),
    ]
    assert list(Wanted(Cohort()).questions()) == [{}]
    assert list(Wanted(Cohort(), until=date(2026, 1, 5)).questions()) == [{"StudyDate": "-20260105"}]


def test_a_question_is_asked_for_each_retired_term_of_a_modality() -> None:
    asked = [question["ModalitiesInStudy"] for question in Wanted(Cohort(modality=["EC", "ct", "US"])).questions()]
    assert asked == ["US", "EC", "CD", "DD", "CT"]


def test_a_retired_term_is_admitted_as_the_index_admits_it() -> None:
    for wanted, held in [("US", "EC"), ("EC", "US"), ("dd", "CD")]:
        criteria = Wanted(Cohort(modality=[wanted]))
        assert criteria.admits_study(replace(FOUND, modalities=("SR", held)))
        assert criteria.admits_series(FoundSeries("1", held, None))
        assert not criteria.admits_study(replace(FOUND, modalities=("SR", "CT")))


@pytest.mark.parametrize(
    ("since", "until", "asked"),
    [
        (None, None, ["20240110-20240115"]),
        (date(2024, 1, 12), None, ["20240112-20240115"]),
        (None, date(2024, 1, 12), ["20240110-20240112"]),
        (date(2020, 1, 1), date(2025, 1, 1), ["20240110-20240115"]),  # options only narrow
        (date(2024, 1, 16), None, []),
    ],
)
def test_days_are_those_of_the_criteria_and_of_the_options(
    since: date | None, until: date | None, asked: list[str]
) -> None:
    criteria = Cohort(date_from=date(2024, 1, 10), date_until=date(2024, 1, 15))
    wanted = Wanted(criteria, since=since, until=until)
    assert [question["StudyDate"] for question in wanted.questions()] == asked
    admitted = [day for day in range(1, 29) if wanted.admits_study(replace(FOUND, study_date=f"2024.01.{day:02}"))]
    first, last = (asked[0][6:8], asked[0][-2:]) if asked else ("1", "0")
    assert admitted == list(range(int(first), int(last) + 1))


def test_a_series_is_kept_back_by_what_the_pacs_says_of_its_device_and_description() -> None:
    wanted = Wanted(
        Cohort(manufacturer=["GE"], protocol=["t1 mprage"], series_description=["chest thin", "Thorax"], view=["PA"])
    )
    fits = FoundSeries("1", "CT", None, "GE MEDICAL SYSTEMS", "MPRAGE_T1-sag", "thin CHEST 1.0")
    assert wanted.admits_series(fits)
    assert wanted.admits_series(FoundSeries("1", "CT", None))  # the PACS is silent: the index decides
    assert wanted.admits_series(replace(fits, series_description="thorax"))
    assert not wanted.admits_series(replace(fits, manufacturer="Siemens"))
    assert not wanted.admits_series(replace(fits, manufacturer="GEORGE"))
    assert not wanted.admits_series(replace(fits, protocol="T2 MPRAGE"))
    assert not wanted.admits_series(replace(fits, series_description="chest thick"))


def test_criteria_of_a_series_make_another_scope_and_the_others_do_not() -> None:
    plain = Wanted(Cohort(modality=["CT"], date_from=date(2024, 1, 1)))
    assert scope_of(plain) == '{"modality": ["CT"]}'
    assert scope_of(Wanted(Cohort(modality=["CT"], manufacturer=["GE"]))) != scope_of(plain)


def test_what_the_pacs_does_not_say_keeps_nothing_back() -> None:
    wanted = Wanted(Cohort(modality=["CT"], sex=["F"], age_max_years=60, body_part=["CHEST"], view=["PA"]))
    assert wanted.admits_study(FOUND)
    assert wanted.admits_study(FoundStudy("1", None, (), None, None, None, None))
    assert wanted.admits_series(FoundSeries("1", None, None))
    assert wanted.admits_series(FoundSeries("1", "CT", "CHEST"))
    assert not wanted.admits_series(FoundSeries("1", "SR", None))
    assert not wanted.admits_series(FoundSeries("1", "CT", "KNEE"))
    assert not wanted.admits_study(FoundStudy("1", None, ("MR",), None, None, None, None))
    assert not wanted.admits_study(FoundStudy("1", None, ("CT",), None, "M", None, None))
    assert not wanted.admits_study(FoundStudy("1", None, ("CT",), None, None, 61.0, None))


def test_days_outside_are_kept_back_even_if_the_pacs_ignores_them() -> None:
    assert Wanted(since=date(2026, 1, 10), until=date(2026, 1, 10)).admits_study(FOUND)
    assert not Wanted(since=date(2026, 1, 11)).admits_study(FOUND)
    assert not Wanted(until=date(2026, 1, 9)).admits_study(FOUND)


@given(st.dates(date(2000, 1, 1)), st.integers(1, 400))
def test_halves_hold_every_day_once(first: date, length: int) -> None:
    last = date.fromordinal(min(first.toordinal() + length, date.max.toordinal()))
    parts = halves({"StudyDate": date_range(first, last), "ModalitiesInStudy": "CT"})
    if first == last:
        assert parts is None
        return
    assert parts is not None
    days = []
    for part in parts:
        begin, _, end = part["StudyDate"].partition("-")
        ends = [datetime.strptime(day, "%Y%m%d").date().toordinal() for day in (begin, end or begin)]
        days += list(range(ends[0], ends[1] + 1))
    assert days == list(range(first.toordinal(), last.toordinal() + 1))


def test_events_are_evenly_spaced_and_never_bunched_after_a_pause() -> None:
    spacing = Spacing(per_minute=30)
    assert [spacing.wait_seconds(now) for now in (0.0, 0.0, 0.0, 100.0, 100.0)] == [0.0, 2.0, 4.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("hours", "hour", "waits"),
    [
        ("19-6", 18, 1), ("19-6", 19, 0), ("19-6", 23, 0), ("19-6", 5, 0), ("19-6", 6, 13),
        ("8-18", 7, 1), ("8-18", 8, 0), ("8-18", 18, 14), ("0-24", 3, 0), (None, 12, 0),
    ],
)  # fmt: skip
def test_hours_of_the_day_may_go_over_midnight(hours: str | None, hour: int, waits: int) -> None:
    assert seconds_until_open(hours, datetime(2026, 3, 2, hour)) == waits * 3600


@pytest.mark.parametrize(
    "block",
    [
        {},
        {"host": "a", "url": "https://a"},
        {"host": "a", "token_file": "t"},
        {"url": "https://user:secret@a"},
        {"url": "https://a", "token_file": "t", "user_file": "u"},
        {"host": "a", "ae_title": "SEVENTEEN_LETTERS"},
        {"host": "a", "ae_title": " "},
        {"host": "a", "hours": "6-6"},
        {"host": "a", "hours": "19-25"},
        {"host": "a", "instances_per_minute": 1},
        {"host": "a", "tls": {"certificate": "c"}},
        {"host": "a", "passwort": "x"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(block: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        PacsSettings.model_validate(block)
