"""The public draw of the sites that a round asks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.site_sampling import drawn_sites, sites_asked

STUDY = "sha256:" + "0" * 64
NAMES = ["anna", "bela", "clara", "dora"]


@pytest.mark.parametrize(
    ("candidates", "fraction", "minimum", "asked"),
    [(10, 0.3, 2, 3), (10, 0.25, 2, 3), (100, 0.07, 2, 7), (10, 0.1, 4, 4), (3, 0.1, 4, 3), (5, 1.0, 2, 5)],
)
def test_the_fraction_is_rounded_up_to_the_minimum_at_least(
    candidates: int, fraction: float, minimum: int, asked: int
) -> None:
    assert sites_asked(candidates, fraction, minimum) == asked


@given(st.permutations(NAMES), st.integers(1, 1000), st.integers(0, 4))
def test_the_draw_depends_on_the_set_of_names_and_not_on_their_order(names: list[str], number: int, count: int) -> None:
    drawn = drawn_sites(STUDY, number, names, count)
    assert drawn == drawn_sites(STUDY, number, NAMES, count)
    assert len(set(drawn)) == count
    assert set(drawn) <= set(NAMES)


def test_every_site_is_drawn_about_as_often() -> None:
    draws = [name for number in range(2000) for name in drawn_sites(STUDY, number, NAMES, 2)]
    # Each is in half of 2000 draws; the standard deviation is sqrt(2000) / 2 = 22.4, and five of them are allowed.
    assert all(abs(draws.count(name) - 1000) < 112 for name in NAMES)


def test_another_study_draws_others() -> None:
    other = "sha256:" + "1" * 64
    assert any(drawn_sites(STUDY, n, NAMES, 2) != drawn_sites(other, n, NAMES, 2) for n in range(10))
