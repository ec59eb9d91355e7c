from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from protocol.errors import MetricError
from protocol.metrics import (
    BINS,
    MASKED_BINS,
    MOST_COUNTED,
    NOISED_BINS,
    ScoreHistograms,
    calibration_curve,
    histogram_problem,
    merge,
    roc_curve,
    summarise,
)


def exact_auc(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    positive, negative = scores[labels == 1][:, None], scores[labels == 0]
    return float((positive > negative).mean() + (positive == negative).mean() / 2)


def draw(seed: int, patients: int, spread: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, patients)
    labels[:2] = 0, 1
    return 1 / (1 + np.exp(-(generator.normal(-0.4, spread, patients) + spread * labels))), labels


@given(st.integers(0, 10_000), st.integers(100, 400), st.sampled_from([0.1, 0.3, 1.0, 3.0]))
def test_binning_moves_an_auc_by_less_than_0_002(seed: int, patients: int, spread: float) -> None:
    scores, labels = draw(seed, patients, spread)
    auc = summarise(ScoreHistograms.from_scores(scores, labels)).auc
    assert auc == pytest.approx(exact_auc(scores, labels), abs=0.002)


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_pooled_is_the_same_as_one_site_with_all_patients(seed: int, sites: int) -> None:
    scores, labels = draw(seed, 60, 1.0)
    parts = [ScoreHistograms.from_scores(scores[i::sites], labels[i::sites]) for i in range(sites)]
    assert merge(parts) == ScoreHistograms.from_scores(scores, labels)


def test_four_patients_give_the_auc_one_counts_by_hand() -> None:
    metrics = summarise(ScoreHistograms.from_scores(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])))
    assert metrics.auc == 0.75
    assert (metrics.patients, metrics.positives, metrics.sensitivity, metrics.specificity) == (4, 2, 0.5, 1.0)
    assert metrics.accuracy == 0.75
    assert metrics.brier == pytest.approx((0.01 + 0.16 + 0.4225 + 0.04) / 4, abs=0.001)


@given(st.integers(0, 10_000), st.sampled_from([BINS, MASKED_BINS, NOISED_BINS]))
def test_accuracy_is_exact_because_0_5_is_an_edge_between_bins(seed: int, bins: int) -> None:
    scores, labels = draw(seed, 50, 1.0)
    accuracy = summarise(ScoreHistograms.from_scores(scores, labels, bins)).accuracy
    assert accuracy == float(np.mean((scores >= 0.5) == labels))
    on_the_edge = ScoreHistograms.from_scores(np.array([0.5, 0.5]), np.array([0, 1]), bins)
    assert summarise(on_the_edge).accuracy == 0.5


def test_the_interval_covers_the_true_auc_about_95_times_in_100() -> None:
    truth = 0.7602  # P(N(1,1) > N(0,1)) = Phi(1/sqrt 2)
    covered = 0
    for seed in range(300):
        metrics = summarise(ScoreHistograms.from_scores(*draw(seed, 120, 1.0)))
        assert metrics.auc_low is not None
        assert metrics.auc_high is not None
        covered += metrics.auc_low <= truth <= metrics.auc_high
    assert 0.90 <= covered / 300 <= 0.99


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc_and_no_roc(label: int) -> None:
    histograms = ScoreHistograms.from_scores(np.array([0.2, 0.9]), np.array([label, label]))
    assert summarise(histograms).auc is None
    assert roc_curve(histograms) == []


def test_nobody_has_no_metrics() -> None:
    metrics = summarise(ScoreHistograms(negative=[], positive=[]))
    assert (metrics.patients, metrics.auc, metrics.brier, metrics.sensitivity) == (0, None, None, None)


def test_the_roc_ends_in_the_corners_and_its_area_is_the_auc() -> None:
    histograms = ScoreHistograms.from_scores(*draw(3, 200, 1.0))
    curve = np.array(roc_curve(histograms))
    assert curve[0].tolist() == [0, 0]
    assert curve[-1].tolist() == [1, 1]
    assert np.trapezoid(curve[:, 1], curve[:, 0]) == pytest.approx(summarise(histograms).auc)


def test_a_perfectly_calibrated_score_lies_on_the_diagonal() -> None:
    generator = np.random.default_rng(0)
    scores = generator.uniform(size=50_000)
    histograms = ScoreHistograms.from_scores(scores, (generator.uniform(size=50_000) < scores).astype(int))
    assert all(abs(mean - rate) < 0.03 for mean, rate, _ in calibration_curve(histograms))
    ece = summarise(histograms).ece
    assert ece is not None
    assert ece < 0.01


def test_small_calibration_groups_are_joined_with_their_neighbours() -> None:
    scores, labels = np.array([0.05, 0.15, 0.25, 0.55, 0.95]), np.array([0, 0, 1, 0, 1])
    histograms = ScoreHistograms.from_scores(scores, labels)
    assert [count for _, _, count in calibration_curve(histograms, least=2)] == [2, 3]
    assert [count for _, _, count in calibration_curve(histograms)] == [1, 1, 1, 1, 1]
    assert calibration_curve(histograms, least=6) == []


def geometric(generator: np.random.Generator) -> Callable[[int, float], NDArray[np.int64]]:
    def draw(count: int, scale: float) -> NDArray[np.int64]:
        chance = 1 - np.exp(-1 / scale)
        return np.asarray(generator.geometric(chance, count) - generator.geometric(chance, count), np.int64)

    return draw


def test_noise_is_added_to_every_bin_and_counts_stay_signed() -> None:
    histograms = ScoreHistograms.from_scores(np.array([0.5]), np.array([1]), bins=16)
    noised = histograms.noised(1.0, lambda count, _scale: np.full(count, -1))
    assert noised.negative == [(i, -1) for i in range(16)]
    assert summarise(noised).auc is None
    assert summarise(noised).patients == 0


def test_noised_metrics_are_without_bias_and_their_interval_covers_the_truth() -> None:
    scores, labels = draw(1, 4000, 1.5)
    exact = ScoreHistograms.from_scores(scores, labels, NOISED_BINS)
    truth = summarise(exact)
    assert truth.auc is not None
    generator = np.random.default_rng(0)
    found = [summarise(exact.noised(1.0, geometric(generator))) for _ in range(100)]
    assert np.mean([metrics.auc or 0 for metrics in found]) == pytest.approx(truth.auc, abs=0.003)
    assert np.mean([metrics.patients for metrics in found]) == pytest.approx(4000, abs=8)
    covered = [(m.auc_low or 0) <= truth.auc <= (m.auc_high or 0) for m in found]
    assert np.mean(covered) > 0.95


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=NOISED_BINS), st.integers(0, 6))
def test_whatever_noise_leaves_in_the_bins_there_are_figures_or_none(bins: list[tuple[int, int]], least: int) -> None:
    negative, positive = ([(i, pair[k]) for i, pair in enumerate(bins) if pair[k]] for k in (0, 1))
    histograms = ScoreHistograms(bins=NOISED_BINS, negative=negative, positive=positive, noise_variance=2.0)
    metrics = summarise(histograms)
    assert metrics.patients == max(0, sum(a + b for a, b in bins))
    for figure in (metrics.auc, metrics.ece, metrics.sensitivity, metrics.specificity):
        assert figure is None or 0 <= figure <= 1
    groups = calibration_curve(histograms, least=least)
    assert all(count >= max(least, 1) for _, _, count in groups)
    assert sum(count for _, _, count in groups) in (0, sum(a + b for a, b in bins))


def test_noise_variance_adds_up() -> None:
    one = ScoreHistograms.from_scores(np.array([0.5, 0.6]), np.array([0, 1]), NOISED_BINS).noised(
        1.0, geometric(np.random.default_rng(1))
    )
    assert merge([one, one]).noise_variance == pytest.approx(2 * one.noise_variance)
    assert one.noise_variance == pytest.approx(1.841, abs=0.001)


@pytest.mark.parametrize("offset", [-11.0, 9.0, 25.0])
def test_scores_near_zero_or_one_are_told_apart(offset: float) -> None:
    generator = np.random.default_rng(2)
    labels = np.arange(300) % 2
    scores = 1 / (1 + np.exp(-(offset + generator.normal(0, 2, 300) + 3 * labels)))
    auc = summarise(ScoreHistograms.from_scores(scores, labels)).auc
    assert auc == pytest.approx(exact_auc(scores, labels), abs=0.002)


def test_a_perfect_separation_of_few_patients_is_not_called_certain() -> None:
    metrics = summarise(ScoreHistograms.from_scores(np.array([0.1, 0.2, 0.3, 0.9, 0.8]), np.array([0, 0, 0, 1, 1])))
    assert (metrics.auc, metrics.auc_high) == (1.0, 1.0)
    assert metrics.auc_low == pytest.approx(0.025**0.5)


@pytest.mark.parametrize("scores", [[1.2], [float("nan")], [-0.1]])
def test_a_score_that_is_no_probability_is_refused(scores: list[float]) -> None:
    with pytest.raises(MetricError):
        ScoreHistograms.from_scores(np.array(scores), np.array([1]))


def test_histograms_with_other_bins_do_not_merge() -> None:
    with pytest.raises(MetricError):
        merge([ScoreHistograms(bins=16, negative=[], positive=[]), ScoreHistograms(negative=[], positive=[])])


@pytest.mark.parametrize("bins", [[(3, 1), (2, 1)], [(1, 1), (1, 1)], [(300_000, 1)], [(-1, 1)]])
def test_bins_out_of_order_twice_or_outside_are_refused(bins: list[tuple[int, int]]) -> None:
    with pytest.raises(ValidationError):
        ScoreHistograms(negative=bins, positive=[])


@pytest.mark.parametrize("noise", [0.0, 1e-300, 1e37, 1e300])
def test_no_variance_of_noise_is_too_large_for_an_interval(noise: float) -> None:
    found = summarise(
        ScoreHistograms(bins=64, negative=[(9, 5), (40, 1)], positive=[(20, 2), (50, 5)], noise_variance=noise)
    )
    assert found.auc is not None
    assert found.auc_low is not None
    assert found.auc_high is not None
    assert 0 <= found.auc_low <= found.auc <= found.auc_high <= 1


@pytest.mark.parametrize(
    ("epsilon", "variance", "problem"),
    [
        (None, 0.0, None),
        (None, 1e-300, "another noise than the study's"),
        (1.0, 1.8413471884, None),  # 2 e / (e - 1)^2, to the tenth digit
        (1.0, 0.0, "another noise than the study's"),
        (1.0, 1e37, "another noise than the study's"),
    ],
)
def test_a_site_does_not_choose_the_variance_of_its_noise(
    epsilon: float | None, variance: float, problem: str | None
) -> None:
    histograms = ScoreHistograms(bins=64, negative=[(9, 5)], positive=[], noise_variance=variance)
    assert histogram_problem(histograms, 64, epsilon) == problem


def test_a_site_s_counts_stay_small_enough_for_the_sum_of_the_most_sites() -> None:
    largest = ScoreHistograms(bins=64, negative=[(9, MOST_COUNTED)], positive=[])
    assert histogram_problem(largest, 64, None) is None
    assert merge([largest] * (2 * 4096 - 1)).negative[0][1] < 2**40
    beyond = ScoreHistograms(bins=64, negative=[(9, MOST_COUNTED + 1)], positive=[])
    assert histogram_problem(beyond, 64, None) == "a count that no hospital has"
