"""From the sites' reports to pooled figures: histograms are merged, never scores. Pure.

Under masks the hub has no report of a site: what the sites' counts sum to stands in its place (`PooledReport`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from pydantic import BaseModel, ConfigDict

from hub.storage.tables import EvaluationRow, PooledEvaluationRow
from protocol.class_metrics import macro_auc
from protocol.concordance import PairCounts, merge_pairs, summarise_pairs
from protocol.messages import EvaluationReport, expect
from protocol.metrics import ScoreHistograms, merge, summarise
from protocol.study import StudySpec
from protocol.study_parts import HeldOutSplit
from protocol.value_histograms import ValueHistogram, mean_of, merge_values, quality_of_values


class PooledReport(BaseModel):
    """The sum of the sites' counts on a version, opened from under their masks, and whose they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    sites: tuple[str, ...]
    histograms: dict[HeldOutSplit, ScoreHistograms] = {}
    classes: dict[HeldOutSplit, list[ScoreHistograms]] = {}
    values: dict[HeldOutSplit, list[ValueHistogram]] = {}
    noise_epsilon: float | None


Report = EvaluationReport | PooledReport
Reports = Sequence[Report]


def reports_of(rows: Iterable[EvaluationRow]) -> list[EvaluationReport]:
    """Return the reports in rows of the hub's own store; their signatures were checked when they came."""
    return [expect(row.report, EvaluationReport) for row in rows]


def pooled_reports_of(rows: Iterable[PooledEvaluationRow]) -> list[PooledReport]:
    """Return the opened sums in rows of the hub's own store."""
    return [PooledReport.model_validate_json(row.report) for row in rows]


def version_of(report: Report) -> int:
    """Return the number of the version that a report is on."""
    return report.version if isinstance(report, PooledReport) else report.version.number


def pooled(reports: Reports, splits: Sequence[str] | None = None) -> ScoreHistograms | None:
    """Merge the reports' histograms of some splits (None: of all), or None if there are none."""
    chosen = [
        h for report in reports for split, h in sorted(report.histograms.items()) if not splits or split in splits
    ]
    return merge(chosen) if chosen else None


def pooled_classes(reports: Reports, splits: Sequence[str] | None = None) -> list[ScoreHistograms]:
    """Merge the reports' histograms of each class, of some splits (None: of all); empty if there are none."""
    chosen = [own for report in reports for split, own in report.classes.items() if not splits or split in splits]
    return [merge(of_class) for of_class in zip(*chosen, strict=True)]


def of_class(report: Report, number: int) -> Report:
    """Return a report as if it were on one class against all others, which is judged as two classes are."""
    own = {split: classes[number] for split, classes in report.classes.items()}
    return report.model_copy(update={"histograms": own, "classes": {}})


def pooled_pairs(reports: Reports, splits: Sequence[str] | None = None) -> PairCounts | None:
    """Merge the reports' counts of pairs of some splits (None: of all), or None if there are none."""
    chosen = [
        counts for report in reports for split, counts in pairs_of(report).items() if not splits or split in splits
    ]
    return merge_pairs(chosen) if chosen else None


def pooled_values(reports: Reports, splits: Sequence[str] | None = None) -> list[ValueHistogram]:
    """Merge the reports' histograms of figures, of some splits (None: of all); empty if there are none."""
    chosen = [own for report in reports for split, own in report.values.items() if not splits or split in splits]
    return merge_values(chosen) if chosen else []


def splits_of(report: Report) -> set[HeldOutSplit]:
    """Return the splits that a report counts patients of."""
    return {*report.histograms, *report.classes, *report.values, *pairs_of(report)}


def pairs_of(report: Report) -> Mapping[HeldOutSplit, PairCounts]:
    """Return a report's counts of pairs, which only a survival study has; under masks there are none."""
    return {} if isinstance(report, PooledReport) else report.pairs


def quality_of(reports: Reports) -> float | None:
    """Return what versions are compared by: on validation patients the pooled AUC, of several classes its mean.

    Survival studies are compared by their concordance, segmentation by the mean Dice coefficient of patients and
    classes, regression by minus the mean absolute error.
    """
    pairs = pooled_pairs(reports, ["validation"])
    if pairs is not None:
        return summarise_pairs(pairs).concordance
    values = pooled_values(reports, ["validation"])
    if values:
        return quality_of_values(values)
    classes = pooled_classes(reports, ["validation"])
    if classes:
        return macro_auc(classes).auc
    histograms = pooled(reports, ["validation"])
    return None if histograms is None else summarise(histograms).auc


def best_version(reports: Reports, default: int) -> int:
    """Return the version with the highest quality on validation patients (`quality_of`); the earlier of equals.

    `default` is returned if no version has one. Version 0 is what training is compared with, never the best.
    """
    best, best_quality = default, -math.inf
    for version, quality in _qualities(reports):
        if quality > best_quality:
            best, best_quality = version, quality
    return best


def evaluations_without_gain(reports: Reports) -> int:
    """Return how many versions were judged after the best one; those whose quality is not known are not counted."""
    best = best_version(reports, default=0)
    return sum(version > best for version, _ in _qualities(reports))


def unheard_terms(spec: StudySpec, reports: Reports) -> str:
    """Say which terms of a study chose nothing because no version has a quality on validation patients; else empty.

    Whether there are validation patients is known when versions were judged: hospitals' own lists may name splits.
    """
    terms = {
        "evaluation.patience": spec.evaluation.patience is not None,
        "evaluation.final_version: best-validation": spec.evaluation.final_version == "best-validation",
    }
    asked = [term for term, is_asked in terms.items() if is_asked]
    if not asked or _qualities(reports):
        return ""
    trained = [report for report in reports if version_of(report) > 0]
    counted, pairs = pooled(trained, ["validation"]), pooled_pairs(trained, ["validation"])
    found = [counted] if counted is not None else pooled_classes(trained, ["validation"])
    figures = mean_of(pooled_values(trained, ["validation"])).patients > 0
    there_are = pairs is not None or figures or any(summarise(own).patients > 0 for own in found)
    cause = "The validation patients give no figure to compare versions by" if there_are else "No validation patient"
    return f"{cause}: {' and '.join(asked)} had no effect."


def _qualities(reports: Reports) -> list[tuple[int, float]]:
    """Return each trained version's quality, by version, where it has one."""
    trained = sorted((report for report in reports if version_of(report) > 0), key=version_of)
    found = [(version, quality_of(list(group))) for version, group in groupby(trained, key=version_of)]
    return [(version, quality) for version, quality in found if quality is not None]
