"""Metrics that merge: score histograms per label, from which pooled results follow without any single score.

Each site counts its held-out patients' scores in fixed bins, one histogram for each label; histograms add; the sum
gives the pooled AUC with its confidence interval, the ROC and the calibration. Bins are equal steps of the *logit* of
the score, fine enough that binning moves an AUC by less than 0.002 even where all scores lie close together.
Not noised, a fine histogram of few patients tells nearly as much as their scores: the study says whether noise is added
(`privacy_accounting.py` charges it), and coarser bins are used then, because noise is paid per bin.
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

BINS = 65536
NOISED_BINS = 256
LOGIT_RANGE = 8.0
THRESHOLD = 0.5
NORMAL_95 = 1.959963984540054

Counts = NDArray[np.int64]
"""(bin,) int64."""
SparseCounts = list[tuple[Annotated[int, Field(ge=0, lt=BINS)], Annotated[int, Field(gt=-(2**40), lt=2**40)]]]


class ScoreHistograms(BaseModel):
    """How many patients of each label have a score in each bin; only bins that are not zero are listed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bins: int = Field(default=BINS, ge=2, le=BINS)
    negative: SparseCounts = Field(max_length=BINS)
    positive: SparseCounts = Field(max_length=BINS)

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

    def dense(self) -> tuple[Counts, Counts]:
        """Return (negative, positive) counts of all bins."""
        result = []
        for sparse in (self.negative, self.positive):
            counts = np.zeros(self.bins, np.int64)
            for number, count in sparse:
                counts[number] = count
            result.append(counts)
        return result[0], result[1]

    def noised(self, draw: Callable[[int], Counts]) -> "ScoreHistograms":
        """Add integer noise to every bin, the empty ones too; `draw(n)` gives n independent values."""
        negative, positive = self.dense()
        return ScoreHistograms(
            bins=self.bins, negative=_sparse(negative + draw(self.bins)), positive=_sparse(positive + draw(self.bins))
        )


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


def merge(histograms: Sequence[ScoreHistograms]) -> ScoreHistograms:
    """Add histograms.

    Raises: MetricError if there are none, or their bins differ.
    """
    if not histograms or len({h.bins for h in histograms}) != 1:
        raise MetricError("Only histograms with the same bins can be merged, and at least one is needed.")
    pairs = [h.dense() for h in histograms]
    negative, positive = (np.sum([pair[side] for pair in pairs], axis=0) for side in (0, 1))
    return ScoreHistograms(bins=histograms[0].bins, negative=_sparse(negative), positive=_sparse(positive))


def summarise(histograms: ScoreHistograms) -> BinaryMetrics:
    """Return AUC with interval, Brier score, calibration error, and sensitivity and specificity at a score of 0.5."""
    centres, negative, positive = _used(histograms)
    negatives, positives = int(negative.sum()), int(positive.sum())
    auc, low, high = _auc(negative, positive)
    total = negatives + positives
    brier = float(positive @ (1 - centres) ** 2 + negative @ centres**2) / total if total else None
    groups = calibration_curve(histograms)
    ece = sum(abs(score - rate) * count for score, rate, count in groups) / total if total else None
    return BinaryMetrics(
        patients=total,
        positives=positives,
        auc=auc,
        auc_low=low,
        auc_high=high,
        brier=brier,
        ece=ece,
        sensitivity=float(positive[centres > THRESHOLD].sum() / positives) if positives else None,
        specificity=float(negative[centres < THRESHOLD].sum() / negatives) if negatives else None,
    )


def roc_curve(histograms: ScoreHistograms) -> list[tuple[float, float]]:
    """Return (false, true positive rate) from the strictest threshold to the loosest; empty if undefined."""
    _, negative, positive = _used(histograms)
    if not negative.sum() or not positive.sum():
        return []
    false_rate = np.cumsum(negative[::-1]) / negative.sum()
    true_rate = np.cumsum(positive[::-1]) / positive.sum()
    return [(0.0, 0.0), *((float(f), float(t)) for f, t in zip(false_rate, true_rate, strict=True))]


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
    if pending[2] and joined:
        joined[-1] = [have + more for have, more in zip(joined[-1], pending, strict=True)]
    return [(score / total, positives / total, int(total)) for score, positives, total in joined]


def _bin_of(scores: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    tiny = 1 / (1 + math.exp(LOGIT_RANGE))
    clipped = np.clip(scores, tiny, 1 - tiny)
    logits = np.log(clipped) - np.log1p(-clipped)
    return np.clip(((logits + LOGIT_RANGE) * (bins / (2 * LOGIT_RANGE))).astype(np.int64), 0, bins - 1)


def _sparse(counts: Counts) -> list[tuple[int, int]]:
    return [(int(number), int(counts[number])) for number in np.flatnonzero(counts)]


def _used(histograms: ScoreHistograms) -> tuple[NDArray[np.float64], Counts, Counts]:
    # (scores at the bins' centres, negative, positive) of the bins in use. Noise may push a bin below zero; no
    # patient can be negative.
    negative, positive = ({n: c for n, c in sparse if c > 0} for sparse in (histograms.negative, histograms.positive))
    numbers = sorted(negative.keys() | positive.keys())
    logits = (np.array(numbers, np.float64) + 0.5) * (2 * LOGIT_RANGE / histograms.bins) - LOGIT_RANGE
    counts = [np.array([side.get(number, 0) for number in numbers], np.int64) for side in (negative, positive)]
    return 1 / (1 + np.exp(-logits)), counts[0], counts[1]


def _auc(negative: Counts, positive: Counts) -> tuple[float | None, float | None, float | None]:
    n, p = float(negative.sum()), float(positive.sum())
    if not n or not p:
        return None, None, None
    below = (np.cumsum(negative) - negative / 2) / n  # a positive in this bin ranks above so many negatives
    above = (p - np.cumsum(positive) + positive / 2) / p
    auc = float(positive @ below / p)
    variance = _variance(below, positive, auc) / p + _variance(above, negative, auc) / n
    low, high = _logit_interval(auc, math.sqrt(variance))
    return auc, low, high


def _variance(placements: NDArray[np.float64], counts: Counts, mean: float) -> float:
    total = float(counts.sum())
    return float(counts @ (placements - mean) ** 2) / (total - 1) if total > 1 else 0.25


def _logit_interval(auc: float, deviation: float) -> tuple[float, float]:
    # On the logit scale the interval stays inside [0, 1]; an AUC of exactly 0 or 1 has no logit.
    if not 0 < auc < 1:
        return max(0.0, auc - NORMAL_95 * deviation), min(1.0, auc + NORMAL_95 * deviation)
    centre, spread = math.log(auc / (1 - auc)), NORMAL_95 * deviation / (auc * (1 - auc))
    return 1 / (1 + math.exp(-(centre - spread))), 1 / (1 + math.exp(-(centre + spread)))
