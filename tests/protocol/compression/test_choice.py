"""Which values travel: numbers known beforehand, places that all derive alike, every set equally likely."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.compression.choice import (
    BLOCK_VALUES,
    Use,
    blocks,
    chosen_number,
    chosen_total,
    largest_places,
    seed_of,
    seeded_places,
)
from protocol.compression.index_sets import decode_places, encode_places, places_bytes
from protocol.errors import CodecError

STUDY = "sha256:" + "a1" * 32


@given(parameters=st.integers(1, 5 * BLOCK_VALUES), fraction=st.floats(1e-4, 1.0))
def test_the_total_is_the_sum_of_the_blocks_numbers(parameters: int, fraction: float) -> None:
    assert chosen_total(parameters, fraction) == sum(chosen_number(size, fraction) for _, size in blocks(parameters))


def test_places_are_a_function_of_study_round_and_direction() -> None:
    def places(study: str, number: int, use: Use) -> list[int]:
        return [int(place) for place in seeded_places(seed_of(study, number, use), 0, 1000, 20)]

    assert places(STUDY, 3, "upload") == places(STUDY, 3, "upload")
    others = [
        places(STUDY, 4, "upload"),
        places(STUDY, 3, "download"),
        places("sha256:" + "b2" * 32, 3, "upload"),
        seeded_places(seed_of(STUDY, 3, "upload"), 1, 1000, 20).tolist(),
    ]
    assert all(other != places(STUDY, 3, "upload") for other in others)


def test_places_never_change_between_versions_of_this_software() -> None:
    """Two hospitals with different releases must choose alike: the values are written down."""
    assert seeded_places(seed_of(STUDY, 1, "upload"), 0, 100, 5).tolist() == [11, 27, 62, 63, 78]


def test_every_place_is_chosen_about_equally_often() -> None:
    size, number, rounds = 64, 8, 2000
    counts = np.zeros(size)
    for place in range(rounds):
        counts[seeded_places(seed_of(STUDY, place, "upload"), 0, size, number)] += 1
    expected = rounds * number / size
    statistic = float((np.square(counts - expected) / expected).sum()) / (1 - number / size)
    assert statistic < 103.4  # 99.9% of chi-square with 63 degrees of freedom


@given(st.integers(1, 5000), st.data())
def test_seeded_places_rise_and_are_as_many_as_asked(size: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, size))
    places = seeded_places(seed_of(STUDY, 1, "upload"), 7, size, number)
    assert places.size == number
    assert (np.diff(places) > 0).all()
    assert places[0] >= 0
    assert places[-1] < size


def test_the_largest_magnitudes_are_chosen() -> None:
    assert largest_places(np.array([1.0, -5.0, 0.0, 4.0, -2.0]), 3).tolist() == [1, 3, 4]


@given(st.integers(1, 3000), st.data())
def test_places_come_back_from_their_bytes(size: int, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=min(size, 400)))
    places = np.array(sorted(chosen))
    coded = encode_places(places, size)
    assert len(coded) == places_bytes(size, places.size)
    assert decode_places(coded, size, places.size).tolist() == places.tolist()


def test_one_of_a_hundred_places_costs_nine_bits() -> None:
    assert 8 * places_bytes(BLOCK_VALUES, BLOCK_VALUES // 100) / (BLOCK_VALUES // 100) < 8.7


@given(st.integers(1, 600), st.data())
def test_bytes_that_are_no_places_are_refused_or_are_the_only_code_of_theirs(size: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, size))
    coded = data.draw(st.binary(min_size=0, max_size=places_bytes(size, number) + 2))
    try:
        places = decode_places(coded, size, number)
    except CodecError:
        return
    assert encode_places(places, size) == coded


@pytest.mark.parametrize(("size", "number"), [(1000, 20), (16, 8)])
def test_one_changed_bit_never_passes_for_the_same_places(size: int, number: int) -> None:
    places = seeded_places(seed_of(STUDY, 1, "upload"), 0, size, number)
    coded = encode_places(places, size)
    for bit in range(8 * len(coded)):
        changed = bytearray(coded)
        changed[bit // 8] ^= 1 << (bit % 8)
        try:
            assert decode_places(bytes(changed), size, number).tolist() != places.tolist()
        except CodecError:
            continue
