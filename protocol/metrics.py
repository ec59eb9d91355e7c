"""Metrics that merge: score histograms per label, from which pooled results follow without any single score.

Each site counts its held-out patients' scores in fixed bins, one histogram for each label; histograms add; the sum
gives the pooled AUC with its confidence interval, the ROC and the calibration. Bins are equal steps of the *logit* of
the score, fine enough that binning moves an AUC by less than 0.002 even where all scores lie close together.
Not noised, a fine histogram of few patients tells nearly as much as their scores: the study says whether noise is added
(`privacy_accounting.py` charges it). Noised histograms have few bins, because every bin brings its noise into the sums;
their counts stay signed, so that sums remain without bias, and their variance widens the interval.
Under masks every bin travels, the empty ones too, so that there are fewer bins over a narrower range; so it is with
several classes, each of which has a pair of histograms of its own (`class_metrics.py`).
Source: DeLong et al. 1988 (variance of an AUC), here on binned scores; Dwork et al. 2006 (Laplace mechanism).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from protocol.errors import MetricError

BINS = 1 << 18
LOGIT_RANGE = 32.0
NOISED_BINS = 64
NOISED_LOGIT_RANGE = 8.0
MASKED_BINS = 1 << 13
MASKED_LOGIT_RANGE = 16.0
THRESHOLD = 0.5
NORMAL_95 = 1.959963984540054
MOST_COUNTED = 1 << 26
"""The largest magnitude of one site's count in one bin, noise included: sums of 4096 sites' splits stay in range."""

Counts = NDArray[np.int64]
"""(bin,) int64."""
SparseCounts = list[tuple[Annotated[int, Field(ge=0, lt=BINS)], Annotated[int, Field(gt=-(2**40), lt=2**40)]]]


class ScoreHistograms(BaseModel):
    """How many patients of each label have a score in each bin; only bins that are not zero are listed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bins: int = Field(default=BINS, ge=2, le=BINS)
    negative: SparseCounts = Field(max_length=BINS)
    positive: SparseCounts = Field(max_length=BINS)
    noise_variance: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="of the noise on each bin")

    @model_validator(mode="after")
    def _bins_once(self) -> "ScoreHistograms":
        for sparse in (self.negative, self.positive):
            numbers = [number for number, _ in sparse]
            if numbers != sorted(set(numbers)) or (numbers and numbers[-1] >= self.bins):
                raise ValueError("bins must be listed once each, in order, below the number of bins")
        return self

    @classmethod
    def from_scores(cls, scores: NDArray[np.float64], labels: NDArray[np.int64], bins: int = BINS) -> "ScoreHistograms":
        """Count scores.

        Shapes: scores (patient,) in [0, 1]; labels (patient,) of 0 and 1.
        Raises: MetricError if a score is not in [0, 1] or the shapes differ.
        """
        if scores.shape != labels.shape or scores.ndim != 1:
            raise MetricError("Expected one score and one label for each patient.")
        if not bool(np.all((scores >= 0) & (scores <= 1))):
            raise MetricError("Expected scores between 0 and 1. Does the model return numbers that are not finite?")
        numbers = _bin_of(scores, bins)
        dense = [np.bincount(numbers[labels == label], minlength=bins) for label in (0, 1)]
        return cls(bins=bins, negative=_sparse(dense[0]), positive=_sparse(dense[1]))

    @classmethod
    def from_counts(cls, negative: Counts, positive: Counts, noise_variance: float = 0.0) -> "ScoreHistograms":
        """Return the histograms of dense counts."""
        return cls(
            bins=len(negative),
            negative=_sparse(negative),
            positive=_sparse(positive),
            noise_variance=noise_variance,
        )

    def dense(self) -> tuple[Counts, Counts]:
        """Return (negative, positive) counts of all bins."""
        result = []
        for sparse in (self.negative, self.positive):
            counts = np.zeros(self.bins, np.int64)
            for number, count in sparse:
                counts[number] = count
            result.append(counts)
        return result[0], result[1]

    def noised(self, epsilon: float, draw: Callable[[int, float], Counts]) -> "ScoreHistograms":
        """Add two-sided geometric noise to every bin, the empty ones too.

        `draw(n, scale)` gives n independent values of probability proportional to exp(-|value| / scale).
        Source: Ghosh et al. 2009.
        """
        negative, positive = (counts + draw(self.bins, 1.0 / epsilon) for counts in self.dense())
        return ScoreHistograms(
            bins=self.bins,
            negative=_sparse(negative),
            positive=_sparse(positive),
            noise_variance=self.noise_variance + geometric_variance(epsilon),
        )


def geometric_variance(epsilon: float) -> float:
    """Return the variance of two-sided geometric noise: 2 a / (1 - a)^2 with a = exp(-epsilon)."""
    ratio = math.exp(-epsilon)
    return 2 * ratio / (1 - ratio) ** 2


def noise_variance_of(noise_epsilon: float | None, sites: int = 1) -> float:
    """Return the variance of the noise on each bin of so many sites' sum, as the study's terms give it; 0 without."""
    return 0.0 if noise_epsilon is None else sites * geometric_variance(noise_epsilon)


def histogram_problem(histograms: ScoreHistograms, bins: int, noise_epsilon: float | None) -> str | None:
    """Say what of one site's histograms is not as the study's terms give it, or None: the gate's and the hub's rule.

    A site does not choose the variance of its noise: it says whether counts are shown, and how wide an interval is.
    """
    counts = [count for _, count in (*histograms.negative, *histograms.positive)]
    expected = noise_variance_of(noise_epsilon)
    if histograms.bins != bins:
        return "another number of bins than the study's"
    # Another machine's exp may end in another last digit.
    if not math.isclose(histograms.noise_variance, expected, rel_tol=1e-9, abs_tol=0.0):
        return "another noise than the study's"
    if noise_epsilon is None and any(count < 0 for count in counts):
        return "fewer than no patients"
    return "a count that no hospital has" if any(abs(count) > MOST_COUNTED for count in counts) else None


@dataclass(frozen=True)
class BinaryMetrics:
    """What a histogram tells; None where one class is missing. The interval is 95 % over patients."""

    patients: int
    positives: int
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    brier: float | None
    ece: float | None
    sensitivity: float | None
    specificity: float | None
    accuracy: float | None


def merge(histograms: Sequence[ScoreHistograms]) -> ScoreHistograms:
    """Add histograms.

    Raises: MetricError if there are none, or their bins differ.
    """
    if not histograms or len({h.bins for h in histograms}) != 1:
        raise MetricError("Only histograms with the same bins can be merged, and at least one is needed.")
    pairs = [h.dense() for h in histograms]
    negative, positive = (np.sum([pair[side] for pair in pairs], axis=0) for side in (0, 1))
    return ScoreHistograms(
        bins=histograms[0].bins,
        negative=_sparse(negative),
        positive=_sparse(positive),
        noise_variance=sum(h.noise_variance for h in histograms),
    )


def summarise(histograms: ScoreHistograms) -> BinaryMetrics:
    """Return AUC with interval, Brier score, calibration error, and at a score of 0.5 the three rates.

    Guarantee: without noise the rates are exact, because 0.5 is an edge between bins; a score of 0.5 is positive.
    """
    centres, negative, positive = _used(histograms)
    negatives, positives = int(negative.sum()), int(positive.sum())
    auc, low, high = _auc(negative, positive, histograms.noise_variance)
    total = negatives + positives
    if total <= 0:
        return BinaryMetrics(max(total, 0), max(positives, 0), None, None, None, None, None, None, None, None)
    brier = float(positive @ (1 - centres) ** 2 + negative @ centres**2) / total
    groups = calibration_curve(histograms)
    found, cleared = positive[centres > THRESHOLD].sum(), negative[centres < THRESHOLD].sum()
    grouped = sum(count for _, _, count in groups)
    ece = sum(abs(score - rate) * count for score, rate, count in groups) / grouped if grouped else None
    return BinaryMetrics(
        patients=total,
        positives=max(positives, 0),
        auc=auc,
        auc_low=low,
        auc_high=high,
        brier=brier,
        ece=ece,
        sensitivity=_fraction(found, positives),
        specificity=_fraction(cleared, negatives),
        accuracy=_fraction(found + cleared, total),
    )


def roc_curve(histograms: ScoreHistograms) -> list[tuple[float, float]]:
    """Return (false, true positive rate) from the strictest threshold to the loosest; empty if undefined."""
    _, negative, positive = _used(histograms)
    if negative.sum() <= 0 or positive.sum() <= 0:
        return []
    false_rate = np.cumsum(negative[::-1]) / negative.sum()
    true_rate = np.cumsum(positive[::-1]) / positive.sum()
    # Noise may make a sum fall; a curve through its highest values so far is what the ROC can be.
    points = np.maximum.accumulate(np.clip([false_rate, true_rate], 0.0, 1.0), axis=1).T
    return [(0.0, 0.0), *((float(f), float(t)) for f, t in points)]


def calibration_curve(histograms: ScoreHistograms, groups: int = 10, least: int = 1) -> list[tuple[float, float, int]]:
    """Return (mean score, fraction of positives, patients) for equal steps of the score; empty steps are left out.

    Guarantee: no group has fewer than `least` patients: small ones are joined with their neighbours, or with none left
        nothing is returned.
    """
    centres, negative, positive = _used(histograms)
    step = np.minimum((centres * groups).astype(int), groups - 1)
    joined: list[list[float]] = []
    pending = [0.0, 0.0, 0.0]
    for number in range(groups):
        count = (negative + positive)[step == number]
        part = (float(count @ centres[step == number]), float(positive[step == number].sum()), float(count.sum()))
        pending = [have + more for have, more in zip(pending, part, strict=True)]
        if pending[2] >= max(least, 1):
            joined.append(pending)
            pending = [0.0, 0.0, 0.0]
    if any(pending):
        joined.append(pending)
    # The rest is too small for a group of its own; under noise it may even be negative and take others with it.
    while joined and joined[-1][2] < max(least, 1):
        rest = joined.pop()
        if joined:
            joined[-1] = [have + more for have, more in zip(joined[-1], rest, strict=True)]
    return [
        (min(max(score / total, 0.0), 1.0), min(max(positives / total, 0.0), 1.0), int(total))
        for score, positives, total in joined
    ]


def _range_of(bins: int) -> float:
    if bins <= NOISED_BINS:
        return NOISED_LOGIT_RANGE
    return MASKED_LOGIT_RANGE if bins <= MASKED_BINS else LOGIT_RANGE


def _bin_of(scores: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    edge = _range_of(bins)
    with np.errstate(divide="ignore"):
        logits = np.clip(np.log(scores) - np.log1p(-scores), -edge, edge)
    numbers = ((logits + edge) * (bins / (2 * edge))).astype(np.int64)
    return np.asarray(np.clip(numbers, 0, bins - 1), np.int64)


def _fraction(count: int, total: int) -> float | None:
    return min(max(float(count) / total, 0.0), 1.0) if total > 0 else None


def _sparse(counts: Counts) -> list[tuple[int, int]]:
    return [(int(number), int(counts[number])) for number in np.flatnonzero(counts)]


def _used(histograms: ScoreHistograms) -> tuple[NDArray[np.float64], Counts, Counts]:
    # (scores at the bins' centres, negative, positive) of the bins in use.
    negative, positive = (dict(sparse) for sparse in (histograms.negative, histograms.positive))
    numbers = sorted(negative.keys() | positive.keys())
    edge = _range_of(histograms.bins)
    logits = (np.array(numbers, np.float64) + 0.5) * (2 * edge / histograms.bins) - edge
    counts = [np.array([side.get(number, 0) for number in numbers], np.int64) for side in (negative, positive)]
    return 1 / (1 + np.exp(-logits)), counts[0], counts[1]


def _auc(negative: Counts, positive: Counts, noise_variance: float) -> tuple[float | None, float | None, float | None]:
    n, p = float(negative.sum()), float(positive.sum())
    if n <= 0 or p <= 0:
        return None, None, None
    below = (np.cumsum(negative) - negative / 2) / n  # a positive in this bin ranks above so many negatives
    above = (p - np.cumsum(positive) + positive / 2) / p
    auc = min(max(float(positive @ below / p), 0.0), 1.0)
    if not noise_variance and auc in (0.0, 1.0):
        return auc, *_extreme_interval(auc, min(n, p))
    variance = _variance(below, positive, auc) / p + _variance(above, negative, auc) / n
    spread = float(((below - auc) ** 2).sum()) / p**2 + float(((above - auc) ** 2).sum()) / n**2
    low, high = _logit_interval(auc, math.sqrt(max(variance, 0.0) + noise_variance * spread))
    return auc, low, high


def _extreme_interval(auc: float, smaller_class: float) -> tuple[float, float]:
    # Without a single misranked pair DeLong's variance is 0; as many patients as the smaller class has can only rule
    # out what would have shown itself with probability 0.975 (Clopper and Pearson 1934, all of them successes).
    reach = 0.025 ** (1 / smaller_class)
    return (reach, 1.0) if auc else (0.0, 1 - reach)


def _variance(placements: NDArray[np.float64], counts: Counts, mean: float) -> float:
    total = float(counts.sum())
    return float(counts @ (placements - mean) ** 2) / (total - 1) if total > 1 else 0.25


def _logit_interval(auc: float, deviation: float) -> tuple[float, float]:
    # On the logit scale the interval stays inside [0, 1]; an AUC of exactly 0 or 1 has no logit.
    if not 0 < auc < 1:
        return max(0.0, auc - NORMAL_95 * deviation), min(1.0, auc + NORMAL_95 * deviation)
    centre, spread = math.log(auc / (1 - auc)), NORMAL_95 * deviation / (auc * (1 - auc))
    return _logistic(centre - spread), _logistic(centre + spread)


def _logistic(logit: float) -> float:
    # Of the two forms the one whose exponential stays below 1: no interval is too wide to be computed.
    small = math.exp(-abs(logit))
    return 1 / (1 + small) if logit >= 0 else small / (1 + small)
