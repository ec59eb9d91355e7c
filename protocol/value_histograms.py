"""Figures of patients in a stated range, such as a Dice coefficient or an error, counted so that sites' counts add.

Each held-out patient has one figure for each histogram of a study: segmentation the Dice coefficient of each class but
the background, regression the absolute error. Bins are equal steps of the range, so that the mean is known to half a
bin. A patient is in one bin of each histogram: with n histograms and noise of epsilon in all, each bin is noised with
epsilon / n, by the same rules as score histograms (`metrics.py`); noised histograms have few bins, because every bin
brings its noise into the mean.
Source: Dwork et al. 2006 (Laplace mechanism); Ghosh et al. 2009 (its whole-numbered form).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from protocol.errors import MetricError
from protocol.metrics import MOST_COUNTED, NORMAL_95, Counts, geometric_variance
from protocol.study import StudySpec

VALUE_BINS = 512
"""In clear and under masks alike: 63 classes' bins of two splits are as many words as a masked message holds."""
NOISED_VALUE_BINS = 64
"""One piece of a masked message (`secure_messages.py`)."""
Figure = Literal["dice", "absolute-error"]
"""What is counted: the larger the better, or the smaller."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
SparseBins = list[tuple[Annotated[int, Field(ge=0, lt=VALUE_BINS)], Annotated[int, Field(gt=-(2**40), lt=2**40)]]]


class ValueHistogram(BaseModel):
    """How many patients have a figure in each of `bins` equal steps from `low` to `high`; empty bins are not listed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    figure: Figure = "dice"
    bins: int = Field(default=VALUE_BINS, ge=2, le=VALUE_BINS)
    low: Finite = 0.0
    high: Finite = 1.0
    counts: SparseBins = Field(max_length=VALUE_BINS)
    noise_variance: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="of the noise on each bin")

    @model_validator(mode="after")
    def _is_of_a_range(self) -> "ValueHistogram":
        numbers = [number for number, _ in self.counts]
        if numbers != sorted(set(numbers)) or (numbers and numbers[-1] >= self.bins):
            raise ValueError("bins must be listed once each, in order, below the number of bins")
        if not self.low < self.high:
            raise ValueError("the range must not be empty")
        return self

    def of(self, values: NDArray[np.float64]) -> "ValueHistogram":
        """Count patients' figures in these bins; what lies outside the range counts at its end.

        Shapes: values (patient,).
        Raises: MetricError if a value is no number: it would belong into no bin.
        """
        if values.ndim != 1 or bool(np.isnan(values).any()):
            raise MetricError("Expected one figure for each patient.")
        steps = (np.clip(values, self.low, self.high) - self.low) * (self.bins / (self.high - self.low))
        numbers = np.clip(steps.astype(np.int64), 0, self.bins - 1)
        return self.with_counts(np.bincount(numbers, minlength=self.bins), 0.0)

    def with_counts(self, counts: Counts, noise_variance: float) -> "ValueHistogram":
        """Return other counts in the same bins. Shapes: counts (bin,)."""
        sparse = [(int(number), int(counts[number])) for number in np.flatnonzero(counts)]
        fields = {"figure": self.figure, "bins": self.bins, "low": self.low, "high": self.high}
        return ValueHistogram.model_validate({**fields, "counts": sparse, "noise_variance": noise_variance})

    def dense(self) -> Counts:
        """Return the counts of all bins."""
        counts = np.zeros(self.bins, np.int64)
        for number, count in self.counts:
            counts[number] = count
        return counts

    def noised(self, epsilon: float, draw: Callable[[int, float], Counts]) -> "ValueHistogram":
        """Add two-sided geometric noise to every bin, the empty ones too; `draw` as in `ScoreHistograms.noised`."""
        counts = self.dense() + draw(self.bins, 1.0 / epsilon)
        return self.with_counts(counts, self.noise_variance + geometric_variance(epsilon))

    def counts_as(self, other: "ValueHistogram") -> bool:
        """Tell whether both count the same figure in the same bins."""
        return (self.figure, self.bins, self.low, self.high) == (other.figure, other.bins, other.low, other.high)


@dataclass(frozen=True)
class ValueTerms:
    """How a study's figures are counted: its histograms, empty, and the noise on all of a split's together."""

    empty: tuple[ValueHistogram, ...]
    noise_epsilon: float | None

    @property
    def epsilon_each(self) -> float | None:
        """Return each histogram's part of the noise's epsilon: a patient is in one bin of every one of them."""
        return None if self.noise_epsilon is None else self.noise_epsilon / len(self.empty)

    @property
    def bins(self) -> int:
        """Return the bins of all histograms of a split."""
        return sum(histogram.bins for histogram in self.empty)

    def noise_variance(self, sites: int = 1) -> float:
        """Return the variance of the noise on each bin of so many sites' sum; 0 without noise."""
        return 0.0 if self.epsilon_each is None else sites * geometric_variance(self.epsilon_each)


def value_terms(study: StudySpec) -> ValueTerms:
    """Return how the figures of a segmentation or regression study are counted."""
    noise = study.evaluation.noise_epsilon
    bins = VALUE_BINS if noise is None else NOISED_VALUE_BINS
    if study.kind == "regression":
        largest = study.regression.high - study.regression.low
        return ValueTerms((ValueHistogram(figure="absolute-error", bins=bins, high=largest, counts=[]),), noise)
    return ValueTerms((ValueHistogram(bins=bins, counts=[]),) * (len(study.label.classes) - 1), noise)


def values_problem(histograms: Sequence[ValueHistogram], terms: ValueTerms) -> str | None:
    """Say what of one site's histograms of a split is not as the study's terms give it, or None: gate's and hub's rule.

    A site does not choose the variance of its noise: it says whether counts are shown, and how wide an interval is.
    """
    if len(histograms) != len(terms.empty):
        return "another number of histograms than the study's"
    expected = terms.noise_variance()
    for histogram, empty in zip(histograms, terms.empty, strict=True):
        if not histogram.counts_as(empty):
            return "other bins than the study's"
        # Another machine's exp may end in another last digit.
        if not math.isclose(histogram.noise_variance, expected, rel_tol=1e-9, abs_tol=0.0):
            return "another noise than the study's"
        if any(abs(count) > MOST_COUNTED for _, count in histogram.counts):
            return "a count that no hospital has"
    if terms.noise_epsilon is not None:
        return None
    if any(count < 0 for histogram in histograms for _, count in histogram.counts):
        return "fewer than no patients"
    # Each patient has one figure in each histogram.
    return "different patients in its histograms" if len({_total(histogram) for histogram in histograms}) > 1 else None


def patients_counted(histograms: Sequence[ValueHistogram]) -> int:
    """Return how many patients un-noised histograms of a split count; each has all of them."""
    return max((_total(histogram) for histogram in histograms), default=0)


def merge_values(parts: Sequence[Sequence[ValueHistogram]]) -> list[ValueHistogram]:
    """Add the histograms of several sites or splits, each with the others' of its place.

    Raises: MetricError if there are none, or they do not count the same.
    """
    if not parts or len({len(part) for part in parts}) != 1:
        raise MetricError("Only equally many histograms can be merged, and at least one is needed.")
    merged = []
    for place in zip(*parts, strict=True):
        if not all(histogram.counts_as(place[0]) for histogram in place):
            raise MetricError("Only histograms of the same figure and bins can be merged.")
        counts = np.sum([histogram.dense() for histogram in place], axis=0)
        merged.append(place[0].with_counts(counts, sum(histogram.noise_variance for histogram in place)))
    return merged


@dataclass(frozen=True)
class ValueMetrics:
    """What a histogram tells; None where it counts nobody. The interval is of the mean, 95 % over patients."""

    patients: int
    mean: float | None
    mean_low: float | None
    mean_high: float | None
    median: float | None


def summarise_values(histogram: ValueHistogram) -> ValueMetrics:
    """Return the mean with its interval, and the median, to half a bin.

    Guarantee: all lie in the range, whatever noise did; the interval counts the noise in.
    """
    counts = histogram.dense().astype(np.float64)
    total, width = float(counts.sum()), (histogram.high - histogram.low) / histogram.bins
    if total < 1:
        return ValueMetrics(0, None, None, None, None)
    centres = histogram.low + width * (np.arange(histogram.bins) + 0.5)
    mean = _within(histogram, float(counts @ centres) / total)
    variance = max(float(counts @ (centres - mean) ** 2), 0.0) / max(total - 1, 1)
    noise = histogram.noise_variance * float(((centres - mean) ** 2).sum()) / total**2
    reach = NORMAL_95 * math.sqrt(variance / total + noise)
    # Noise may make a running sum fall; the median is where it first reaches the half.
    middle = int(np.argmax(np.cumsum(counts) >= total / 2))
    return ValueMetrics(
        patients=int(total),
        mean=mean,
        mean_low=_within(histogram, mean - reach),
        mean_high=_within(histogram, mean + reach),
        median=float(centres[middle]),
    )


def _within(histogram: ValueHistogram, value: float) -> float:
    return min(max(value, histogram.low), histogram.high)


def _total(histogram: ValueHistogram) -> int:
    return sum(count for _, count in histogram.counts)


def mean_of(histograms: Sequence[ValueHistogram]) -> ValueMetrics:
    """Return what several histograms of the same patients tell together: the mean of their means.

    The interval is the mean of the lower ends and that of the upper ends: the same patients make all of them, which go
    up and down together to an unknown degree, and this is right where they do so entirely, and else too wide.
    """
    found = [metrics for metrics in map(summarise_values, histograms) if metrics.mean is not None]
    if not found:
        return ValueMetrics(0, None, None, None, None)
    return ValueMetrics(
        patients=max(metrics.patients for metrics in found),
        mean=_mean(metrics.mean for metrics in found),
        mean_low=_mean(metrics.mean_low for metrics in found),
        mean_high=_mean(metrics.mean_high for metrics in found),
        median=_mean(metrics.median for metrics in found),
    )


def quality_of_values(histograms: Sequence[ValueHistogram]) -> float | None:
    """Return what versions are compared by, the larger the better: the mean Dice coefficient, minus the mean error."""
    mean = mean_of(histograms).mean
    return mean if mean is None or histograms[0].figure == "dice" else -mean


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)
