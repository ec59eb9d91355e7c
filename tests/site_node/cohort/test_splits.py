"""The keyed split: stable, in proportion, unlinkable without the key."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.study_parts import Splits
from site_node.cohort.splits import instance_digest, pseudonym, split_by_hash, split_of

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
HELD_OUT = Splits(validation=0.1, test=0.2)


def test_the_split_never_changes() -> None:
    # Fixed for ever: a change would put held-out patients of past studies into training.
    found = [split_by_hash(f"P{number}", HELD_OUT, KEY) for number in range(12)]
    assert found == [
        "test", "train", "train", "train", "train", "test", "train", "test", "train", "validation", "test", "test",
    ]  # fmt: skip


def test_fractions_are_kept_within_chance() -> None:
    found = [split_by_hash(f"P{number}", HELD_OUT, KEY) for number in range(5000)]
    assert abs(found.count("test") / 5000 - 0.2) < 0.02
    assert abs(found.count("validation") / 5000 - 0.1) < 0.02


def test_another_key_gives_another_split() -> None:
    splits = [[split_by_hash(f"P{number}", HELD_OUT, key) for number in range(100)] for key in (KEY, OTHER_KEY)]
    assert splits[0] != splits[1]


@given(st.text(max_size=20), st.floats(0, 0.4), st.floats(0, 0.4))
def test_who_is_tested_under_a_smaller_fraction_is_tested_under_a_larger(patient: str, low: float, more: float) -> None:
    if split_by_hash(patient, Splits(validation=0.1, test=low), KEY) == "test":
        assert split_by_hash(patient, Splits(validation=0.1, test=low + more), KEY) == "test"


def test_no_fraction_holds_nobody_out() -> None:
    assert split_by_hash("P1", Splits(validation=0, test=0), KEY) == "train"


def test_a_stated_split_goes_before_the_hash_and_two_are_a_conflict() -> None:
    assert split_of(["P1"], {"train", None}, HELD_OUT, KEY) == "train"
    assert split_of(["P1"], {"train", "test"}, HELD_OUT, KEY) is None
    assert split_of(["P1"], {None}, HELD_OUT, KEY) == split_by_hash("P1", HELD_OUT, KEY)


def test_pseudonyms_depend_on_key_and_purpose() -> None:
    names = {pseudonym("X", KEY), pseudonym("X", OTHER_KEY), instance_digest("X", KEY)}
    assert len(names) == 3
    assert pseudonym("X", KEY) == pseudonym("X", KEY)
