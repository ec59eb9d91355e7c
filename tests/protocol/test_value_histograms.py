"""Figures of patients in a range: counted, merged, noised, summarised."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MetricError
from protocol.metrics import geometric_variance
from protocol.study import StudySpec, parse_study
from protocol.value_histograms import (
    NOISED_VALUE_BINS,
    VALUE_BINS,
    ValueHistogram,
    mean_of,
    merge_values,
    patients_counted,
    quality_of_values,
    summarise_values,
    value_terms,
    values_problem,
)


def study_of(**evaluation: object) -> StudySpec:
    return parse_study(
        {
            "name": "organs",
            "kind": "segmentation",
            "label": {"classes": ["background", "front", "back"]},
            "network": {"name": "unet"},
            "rounds": 2,
            "privacy": {"epsilon": None},
            "evaluation": evaluation,
        }
    )


def dice(*values: float) -> ValueHistogram:
    return ValueHistogram(counts=[]).of(np.array(values, np.float64))


def test_each_patient_is_in_one_bin_and_the_mean_is_known_to_half_a_bin() -> None:
    histogram = dice(0.2, 0.4, 0.9)
    metrics = summarise_values(histogram)
    assert sum(count for _, count in histogram.counts) == metrics.patients == 3
    assert metrics.mean == pytest.approx(0.5, abs=0.5 / VALUE_BINS)
    assert metrics.median == pytest.approx(0.4, abs=0.5 / VALUE_BINS)
    assert metrics.mean_low is not None
    assert metrics.mean_high is not None
    assert 0 <= metrics.mean_low < 0.5 < metrics.mean_high <= 1


def test_the_ends_of_the_range_take_what_lies_beyond_them() -> None:
    errors = ValueHistogram(high=40.0, counts=[]).of(np.array([-1.0, 0.0, 40.0, 1e9, np.inf]))
    assert errors.counts == [(0, 2), (VALUE_BINS - 1, 3)]


def test_a_figure_that_is_no_number_is_refused() -> None:
    with pytest.raises(MetricError):
        dice(0.5, float("nan"))


def test_nobody_has_no_mean() -> None:
    assert summarise_values(ValueHistogram(counts=[])).mean is None
    assert patients_counted([ValueHistogram(counts=[]), ValueHistogram(counts=[])]) == 0


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=8), min_size=1, max_size=5))
def test_sites_together_are_as_if_their_patients_were_in_one_place(sites: list[list[float]]) -> None:
    (merged,) = merge_values([[dice(*values)] for values in sites])
    assert merged == dice(*(value for values in sites for value in values))


def test_histograms_of_different_ranges_do_not_merge() -> None:
    with pytest.raises(MetricError):
        merge_values([[dice(0.5)], [ValueHistogram(high=2.0, counts=[]).of(np.array([0.5]))]])


def test_a_study_has_a_histogram_for_each_class_but_the_background_and_shares_its_noise_among_them() -> None:
    terms = value_terms(study_of(noise_epsilon=1.0))
    assert [(empty.figure, empty.low, empty.high) for empty in terms.empty] == [("dice", 0.0, 1.0)] * 2
    assert (terms.bins, terms.epsilon_each) == (2 * NOISED_VALUE_BINS, 0.5)  # a patient is in both histograms
    assert terms.noise_variance(sites=3) == pytest.approx(3 * geometric_variance(0.5))
    assert value_terms(study_of()).epsilon_each is None


def test_noise_reaches_every_bin_and_widens_the_interval() -> None:
    exact = ValueHistogram(bins=NOISED_VALUE_BINS, counts=[]).of(np.full(50, 0.8))
    drawn = np.where(np.arange(NOISED_VALUE_BINS) % 2, 1, -1).astype(np.int64)
    noised = exact.noised(
        1.0, lambda number, scale: drawn if (number, scale) == (NOISED_VALUE_BINS, 1.0) else drawn[:0]
    )
    assert (noised.dense() - exact.dense()).tolist() == drawn.tolist()
    narrow, wide = summarise_values(exact), summarise_values(noised)
    assert narrow.mean_high is not None
    assert wide.mean_high is not None
    assert wide.mean_high > narrow.mean_high


@given(st.lists(st.integers(-5, 5), min_size=NOISED_VALUE_BINS, max_size=NOISED_VALUE_BINS))
def test_whatever_the_noise_the_figures_lie_in_the_range(counts: list[int]) -> None:
    metrics = summarise_values(
        ValueHistogram(bins=NOISED_VALUE_BINS, high=40.0, counts=[]).with_counts(np.array(counts), 2.0)
    )
    for figure in (metrics.mean, metrics.mean_low, metrics.mean_high, metrics.median):
        assert figure is None or 0 <= figure <= 40


@pytest.mark.parametrize(
    ("histograms", "said"),
    [
        ([dice(0.5)], "number of histograms"),
        ([dice(0.5), ValueHistogram(high=2.0, counts=[]).of(np.array([0.5]))], "other bins"),
        ([dice(0.5), ValueHistogram(figure="absolute-error", counts=[(1, 1)])], "other bins"),
        ([dice(0.5), ValueHistogram(bins=64, counts=[(1, 1)])], "other bins"),
        ([dice(0.5), ValueHistogram(counts=[(1, 1)], noise_variance=1.0)], "another noise"),
        ([dice(0.5), ValueHistogram(counts=[(1, -1)])], "fewer than no patients"),
        ([dice(0.5), ValueHistogram(counts=[(1, 1 << 27)])], "no hospital"),
        ([dice(0.5), dice(0.5, 0.5)], "different patients"),
        ([dice(0.5), dice(0.7)], None),
    ],
)
def test_what_is_not_as_the_study_says_is_named(histograms: list[ValueHistogram], said: str | None) -> None:
    problem = values_problem(histograms, value_terms(study_of()))
    assert problem is None if said is None else said in (problem or "")


def test_versions_are_compared_by_the_mean_over_classes_or_by_minus_the_error() -> None:
    front, back = dice(0.9, 0.7), dice(0.5, 0.5)
    assert mean_of([front, back]).mean == pytest.approx(0.65, abs=0.002)
    assert quality_of_values([front, back]) == mean_of([front, back]).mean
    months = ValueHistogram(figure="absolute-error", high=40.0, counts=[]).of(np.array([4.0, 8.0]))
    assert quality_of_values([months]) == pytest.approx(-6.0, abs=0.1)
    assert quality_of_values([ValueHistogram(counts=[])]) is None
