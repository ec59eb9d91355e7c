"""Who is one patient: rows in any order, chains, circles, opt-outs under any id."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_node.cohort.identities import (
    AS_THEY_ARE,
    CIRCLE,
    FOREIGN_KIND,
    LACKS_A_PATIENT,
    LACKS_AN_ID,
    ONE_ID_TWICE,
    SEVERAL_NEW,
    MergeRow,
    identities_of,
    read_identities,
)
from site_node.errors import LabelsError

NAMES = st.sampled_from("abcdefgh")
ROWS = st.lists(st.builds(MergeRow, NAMES, NAMES, st.booleans()).filter(lambda row: row.old != row.new), max_size=8)


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_without_a_table_everybody_is_who_they_are() -> None:
    assert read_identities(None, None) == AS_THEY_ARE
    assert AS_THEY_ARE.one("a") == "a"
    assert AS_THEY_ARE.known_as("a") == AS_THEY_ARE.dealt_as("a") == ("a",)
    assert AS_THEY_ARE.takes_part("a")


def test_a_chain_ends_at_its_last_id() -> None:
    found = identities_of([MergeRow("b", "c"), MergeRow("a", "b")])
    assert [found.one(name) for name in "abcd"] == ["c", "c", "c", "d"]
    assert found.known_as("a") == ("a", "b", "c")


def test_a_circle_is_one_patient_and_counted() -> None:
    faults: Counter[str] = Counter()
    found = identities_of([MergeRow("b", "a"), MergeRow("a", "c"), MergeRow("c", "b")], faults)
    assert {found.one(name) for name in "abc"} == {"a"}
    assert faults == {CIRCLE: 1}


def test_one_id_with_two_new_ones_joins_them_and_is_counted() -> None:
    faults: Counter[str] = Counter()
    found = identities_of([MergeRow("a", "c"), MergeRow("a", "b")], faults)
    assert {found.one(name) for name in "abc"} == {"b"}
    assert faults == {SEVERAL_NEW: 1}


def test_a_new_pseudonym_was_never_dealt_to_a_split_and_a_joined_id_was() -> None:
    found = identities_of([MergeRow("old", "new", renamed=True), MergeRow("here", "there")])
    assert found.dealt_as("new") == ("old",)
    assert found.dealt_as("here") == ("here", "there")
    both = identities_of([MergeRow("old", "new", renamed=True), MergeRow("other", "new")])
    assert both.dealt_as("old") == ("new", "old", "other")


def test_who_opts_out_under_one_id_has_opted_out_under_all() -> None:
    found = identities_of([MergeRow("a", "b"), MergeRow("b", "c")]).without(["b"])
    assert [found.takes_part(name) for name in "abcd"] == [False, False, False, True]


def test_faulty_rows_are_counted_and_no_value_is_kept_of_them(tmp_path: Path) -> None:
    merges = table(
        tmp_path / "merges.csv",
        *("old_id;new_id;kind", "a;b;joined", "a;;joined", ";b;", "c;c;", "d;e;Renamed", "f;g;moved", "a;b;joined"),
    )
    opt_outs = table(tmp_path / "out.csv", "patient_id,since", "d,2020", ",2021")
    found = read_identities(merges, opt_outs)
    assert found.faults == {LACKS_AN_ID: 2, ONE_ID_TWICE: 1, FOREIGN_KIND: 1, LACKS_A_PATIENT: 1}
    assert found.merged == (("a", "b"), ("d", "e"), ("f", "g"))
    assert found.dealt_as("e") == ("d",)
    assert not found.takes_part("e")


def test_a_list_that_is_named_and_not_there_stops_everything(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="excluded_patients"):
        read_identities(None, tmp_path / "gone.csv")
    with pytest.raises(LabelsError, match="lacks the column 'new_id'"):
        read_identities(table(tmp_path / "merges.csv", "old_id,other", "a,b"), None)


@given(ROWS, st.randoms())
def test_rows_in_another_order_make_the_same_patients(rows: list[MergeRow], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert identities_of(shuffled) == identities_of(rows)


@given(ROWS)
def test_ids_are_one_patient_exactly_if_rows_connect_them(rows: list[MergeRow]) -> None:
    found = identities_of(rows)
    reach = {name: {name} for name in "abcdefgh"}
    for _ in range(8):
        for row in rows:
            both = reach[row.old] | reach[row.new]
            for name in both:
                reach[name] = reach[name] | both
    for name, others in reach.items():
        assert set(found.known_as(name)) == others
        assert found.one(name) in others
        assert found.one(found.one(name)) == found.one(name)


def test_ids_in_many_rows_are_one_patient() -> None:
    found = identities_of(MergeRow(str(number), str(number + 1)) for number in range(5000))
    assert found.one("0") == "5000"
    assert len(found.known_as("17")) == 5001
