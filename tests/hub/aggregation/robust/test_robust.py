"""Robust joinings: by hand, beside plain formulas over whole arrays, and against wild updates."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hub.aggregation.joining import Joining, Mean
from hub.aggregation.robust.distances import squared_distances
from hub.aggregation.robust.geometric_median import GeometricMedian
from hub.aggregation.robust.krum import Krum
from hub.aggregation.robust.median import Median
from hub.aggregation.robust.norm_limit import NormLimit, shortening
from hub.aggregation.robust.trimmed_mean import TrimmedMean
from hub.aggregation.weighting import AsSent
from hub.errors import AggregationError
from hub.registry.blobs import BlobStore
from tests.hub.aggregation.shelf import Shelf

Matrix = NDArray[np.float32]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 1024 values, so that larger models take several."""
    monkeypatch.setattr("hub.aggregation.chunks.WINDOW_BYTES", 1)


def test_the_median_of_odd_and_even_numbers_of_sites(shelf: Shelf) -> None:
    assert shelf.joined(Median(), shelf.updates([[1, 9], [5, 2], [3, 4]])) == [3, 4]
    assert shelf.joined(Median(), shelf.updates([[1, 9], [5, 2], [3, 4], [100, 3]])) == [4, 3.5]


def test_the_trimmed_mean_leaves_out_both_ends(shelf: Shelf) -> None:
    updates = shelf.updates([[1.0], [2.0], [4.0], [9.0], [-50.0]])
    assert shelf.joined(TrimmedMean(1), updates) == [pytest.approx(7 / 3)]
    assert shelf.joined(TrimmedMean(2), updates) == [2.0]
    assert shelf.joined(TrimmedMean(0), updates) == [pytest.approx(-34 / 5)]


def test_krum_takes_the_update_with_the_nearest_neighbours(shelf: Shelf) -> None:
    # f = 1 among 5: each score is the sum of the two smallest squared distances.
    # 0: 1 + 9; 1: 1 + 4; 3: 4 + 1; 4: 1 + 9; 50: far. 1 and 3 have 5, and the first of them is taken.
    updates = shelf.updates([[0.0], [1.0], [3.0], [4.0], [50.0]])
    assert shelf.joined(Krum(1), updates) == [1.0]
    assert shelf.joined(Krum(1), updates[::-1]) == [3.0]


def test_multi_krum_averages_the_best(shelf: Shelf) -> None:
    # n - f - 2 = 2 of the five: 1 and 3.
    updates = shelf.updates([[0.0], [1.0], [3.0], [4.0], [50.0]])
    assert shelf.joined(Krum(1, several=True), updates) == [2.0]


def test_the_geometric_median_on_a_line_is_the_median(shelf: Shelf) -> None:
    updates = shelf.updates([[0.0], [1.0], [10.0]])
    assert shelf.joined(GeometricMedian(AsSent()), updates) == [pytest.approx(1.0, abs=1e-4)]


def test_the_geometric_median_of_a_triangle_is_its_fermat_point(shelf: Shelf) -> None:
    corners = [[0.0, 0.0], [4.0, 0.0], [2.0, 2 * 3**0.5]]  # equilateral: the centre
    found = shelf.joined(GeometricMedian(AsSent()), shelf.updates(corners))
    np.testing.assert_allclose(found, [2.0, 2 / 3**0.5], rtol=5e-3)


def test_more_than_half_of_the_weight_draws_the_geometric_median_to_itself(shelf: Shelf) -> None:
    found = shelf.joined(
        GeometricMedian(AsSent()), shelf.updates([[0.0, 1.0], [8.0, 1.0], [4.0, 9.0]], [5.0, 1.0, 1.0])
    )
    np.testing.assert_allclose(found, [0.0, 1.0], atol=0.05)


def test_the_geometric_median_leaves_an_update_that_is_not_it_and_keeps_one_that_is(shelf: Shelf) -> None:
    # On a line it is the weighted median, wherever the middle update lies.
    for weights, expected in (([10.0, 10.0, 100.0], 9.0), ([10.0, 10.0, 15.0], 2.0), ([30.0, 10.0, 10.0], 1.0)):
        updates = shelf.updates([[1.0], [2.0], [9.0]], weights)
        assert shelf.joined(GeometricMedian(AsSent()), updates) == [pytest.approx(expected, abs=1e-5)]


@pytest.mark.parametrize("wild", [-1e3, 1e6, 1e15])
def test_many_alike_wild_updates_of_little_weight_do_not_move_the_geometric_median(shelf: Shelf, wild: float) -> None:
    honest = [[1.0, 0.9], [0.9, 1.0], [1.1, 1.0], [1.0, 1.1]]
    updates = shelf.updates([*honest, *[[wild, wild]] * 5], [200.0] * 4 + [20.0] * 5)
    found = shelf.joined(GeometricMedian(AsSent()), updates)
    np.testing.assert_allclose(found, [1.0, 1.0], atol=0.1)


def sum_of_distances(point: Sequence[float], rows: Matrix) -> float:
    return float(np.linalg.norm(rows - np.asarray(point), axis=1).sum())


def test_no_direction_leads_to_a_better_geometric_median(shelf: Shelf) -> None:
    rows = np.random.default_rng(0).normal(0, 1, (7, 40)).astype(np.float32)
    found = shelf.joined(GeometricMedian(AsSent()), shelf.updates(rows))
    best = sum_of_distances(found, rows)
    for direction in np.random.default_rng(1).normal(0, 0.05, (50, 40)):
        assert sum_of_distances(found + direction, rows) > best - 1e-4


def test_too_few_updates_are_refused_with_the_remedy(shelf: Shelf) -> None:
    four = shelf.updates([[1.0]] * 4)
    for joining in (Krum(1), Krum(1, several=True), TrimmedMean(2)):
        with pytest.raises(AggregationError, match=r"strategy\.wild_sites"):
            shelf.joined(joining, four)
    for middle in (Median(), GeometricMedian(AsSent())):
        with pytest.raises(AggregationError, match="3 updates"):
            shelf.joined(middle, four[:2])


def test_long_updates_are_shortened_to_a_multiple_of_the_median(shelf: Shelf) -> None:
    updates = shelf.updates([[3.0, 4.0], [0.0, 5.0], [60.0, 80.0]])  # lengths 5, 5, 100
    found = shelf.joined(NormLimit(Mean(AsSent()), 2.0), updates)
    np.testing.assert_allclose(found, [(3 + 6) / 3, (4 + 5 + 8) / 3], rtol=1e-6)
    assert shortening([5.0, 5.0, 100.0], 2.0) == [1.0, 1.0, 0.1]
    assert shortening([0.0, 0.0, 3.0], 2.0) == [1.0, 1.0, 0.0]


def test_a_limit_goes_with_any_joining_and_sees_factors(shelf: Shelf) -> None:
    updates = shelf.updates([[1.0], [2.0], [400.0]])
    assert shelf.joined(NormLimit(Median(), 1.0), updates) == [2.0]
    halved = [replace(update, factor=0.5) for update in updates]
    assert shelf.joined(NormLimit(Mean(AsSent()), 1.0), halved) == [pytest.approx((0.5 + 1 + 1) / 3)]


def krum_reference(rows: Matrix, wild: int, several: bool) -> NDArray[np.float64]:
    """Blanchard et al. 2017 over whole arrays."""
    wide = rows.astype(np.float64)
    nearest = len(rows) - wild - 2
    distances = ((wide[:, None] - wide[None]) ** 2).sum(-1)
    scores = np.sort(distances, axis=1)[:, 1 : nearest + 1].sum(1)
    return np.asarray(wide[np.argsort(scores, kind="stable")[: nearest if several else 1]].mean(0))


def weiszfeld_reference(rows: Matrix, weights: Sequence[float]) -> NDArray[np.float64]:
    wide, point = rows.astype(np.float64), np.median(rows.astype(np.float64), axis=0)
    for _ in range(500):
        beta = np.array(weights) / np.linalg.norm(wide - point, axis=1)
        point = beta @ wide / beta.sum()
    return np.asarray(point)


@pytest.mark.parametrize("sites", [5, 8])
def test_chunked_joinings_are_those_of_whole_arrays(shelf: Shelf, sites: int) -> None:
    rows = np.random.default_rng(sites).normal(0, 1, (sites, 5000)).astype(np.float32)
    weights = [float(1 + site) for site in range(sites)]
    updates = shelf.updates(rows, weights)
    cut = np.sort(rows.astype(np.float64), axis=0)[1:-1].mean(0)
    cases: list[tuple[Joining, NDArray[np.float64]]] = [
        (Median(), np.median(rows.astype(np.float64), axis=0)),
        (TrimmedMean(1), cut),
        (Krum(1), krum_reference(rows, 1, several=False)),
        (Krum(1, several=True), krum_reference(rows, 1, several=True)),
    ]
    for joining, expected in cases:
        np.testing.assert_allclose(shelf.joined(joining, updates), expected, rtol=1e-9, atol=1e-12)
    median = shelf.joined(GeometricMedian(AsSent()), updates)
    np.testing.assert_allclose(median, weiszfeld_reference(rows, weights), atol=1e-6)


def test_all_pairs_distances_are_summed_over_windows(shelf: Shelf) -> None:
    rows = np.random.default_rng(3).normal(0, 1, (6, 9000)).astype(np.float32)
    found = squared_distances(shelf.round(shelf.updates(rows)))
    for one, other in combinations(range(6), 2):
        expected = float(((rows[one].astype(np.float64) - rows[other]) ** 2).sum())
        assert found[one, other] == found[other, one] == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    wild=st.integers(1, 2),
    size=st.floats(-1e6, 1e6, allow_nan=False).map(float),
    spread=st.floats(0, 1e5),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_few_wild_updates_cannot_lead_the_others_astray(
    tmp_path_factory: pytest.TempPathFactory, wild: int, size: float, spread: float, seed: int
) -> None:
    shelf = Shelf(BlobStore(tmp_path_factory.mktemp("shelf")))
    generator = np.random.default_rng(seed)
    good = generator.normal(1.0, 0.1, (2 * wild + 3, 12)).astype(np.float32)
    bad = (size + spread * generator.normal(0, 1, (wild, 12))).astype(np.float32)
    order = generator.permutation(len(good) + wild)
    updates = shelf.updates(np.concatenate([good, bad])[order])
    low, high = good.min(0), good.max(0)
    within: tuple[Joining, ...] = (Median(), TrimmedMean(wild))
    for joining in within:
        found = np.array(shelf.joined(joining, updates))
        assert (found >= low).all()
        assert (found <= high).all()
    widest = max(float(np.linalg.norm(one - other)) for one, other in combinations(good, 2))
    centre = good.mean(0)
    near: tuple[Joining, ...] = (Krum(wild), Krum(wild, several=True), GeometricMedian(AsSent()))
    for joining in near:
        distance = float(np.linalg.norm(np.array(shelf.joined(joining, updates)) - centre))
        assert distance <= 3 * widest


def test_the_mean_is_led_astray(shelf: Shelf) -> None:
    assert shelf.joined(Mean(AsSent()), shelf.updates([[1.0], [1.0], [1e6]]))[0] > 1e5


@pytest.mark.parametrize(
    "joining",
    [
        Mean(AsSent()),
        Median(),
        TrimmedMean(2),
        Krum(2),
        Krum(2, several=True),
        GeometricMedian(AsSent()),
        NormLimit(Median(), 2.0),
    ],
    ids=lambda joining: type(joining).__name__,
)
def test_memory_grows_neither_with_the_model_nor_with_the_sites(
    shelf: Shelf, joining: Joining, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.aggregation.chunks.WINDOW_BYTES", 1 << 20)
    small, wide, many = (peak_bytes(shelf, joining, *shape) for shape in ((8, 50_000), (8, 200_000), (32, 200_000)))
    assert small < 4 << 20  # a window, and some blocks and rows of float64
    assert wide <= 1.1 * small
    assert many <= 1.3 * small  # 25.6 MB of files


def peak_bytes(shelf: Shelf, joining: Joining, sites: int, values: int) -> int:
    """Return the most memory that a joining takes for files of random values."""
    gathered = shelf.round(shelf.updates(np.random.default_rng(1).normal(0, 1, (sites, values)).astype(np.float32)))
    tracemalloc.start()
    rule = joining.prepare(gathered)
    for window in gathered.windows():
        rule(window)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak
