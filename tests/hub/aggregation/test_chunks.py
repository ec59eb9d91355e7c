"""Sums over windows of files: exact where it matters, finite if and only if every value is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.aggregation.chunks import STRETCH, sum_of_squares

LARGEST = float(np.finfo(np.float32).max)


def test_the_sum_of_squares_is_that_of_the_values() -> None:
    assert sum_of_squares(np.array([3.0, 4.0], np.float32)) == 25.0
    assert sum_of_squares(np.array([], np.float32)) == 0.0


@given(size=st.integers(1, 3 * STRETCH), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_it_is_good_to_a_hundred_thousandth_however_many_there_are(size: int, scale: float) -> None:
    values = (np.random.default_rng(size).standard_normal(size) * scale).astype(np.float32)
    exact = float(np.square(values.astype(np.float64)).sum())
    assert sum_of_squares(values) == pytest.approx(exact, rel=1e-5)


def test_values_whose_squares_are_beyond_float32_are_finite_all_the_same() -> None:
    assert sum_of_squares(np.array([LARGEST, LARGEST], np.float32)) == pytest.approx(2 * LARGEST**2, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, STRETCH - 1, STRETCH, STRETCH + 5])
def test_one_value_that_is_not_finite_shows_wherever_it_stands(bad: float, place: int) -> None:
    values = np.ones(STRETCH + 6, np.float32)
    values[place] = bad
    assert not np.isfinite(sum_of_squares(values))
