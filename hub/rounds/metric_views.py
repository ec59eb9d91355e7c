"""What people see of how good a version is: figures pooled from the sites' counts, small counts hidden.

Small counts are hidden in what is shown (null stands for fewer than five), not in the bins that are merged. Where one
site's count alone is hidden the pooled one is hidden too: else it would follow from the other sites' counts. So it is
with several classes, of which each patient has one: where one class's count alone is hidden, that of the smallest other
is hidden with it.
"""

from collections.abc import Sequence
from typing import Any

from hub.rounds.scoring import (
    PooledReport,
    Reports,
    of_class,
    pooled,
    pooled_classes,
    pooled_pairs,
    pooled_values,
    splits_of,
)
from protocol.class_metrics import macro_auc
from protocol.concordance import PairCounts, summarise_pairs
from protocol.metrics import BinaryMetrics, ScoreHistograms, calibration_curve, roc_curve, summarise
from protocol.value_histograms import ValueHistogram, ValueMetrics, mean_of, summarise_values

SMALLEST_SHOWN_COUNT = 5
COUNTS = ("patients", "positives")
RATES = ("auc", "auc_low", "auc_high", "brier", "ece", "sensitivity", "specificity", "accuracy")
UNNOISED, NOISED = "held-out patients: no DP", "noised"
IN_CLEAR, UNDER_MASKS = "each hospital's in clear", "summed under masks"

View = dict[str, Any]


def metrics_view(reports: Reports) -> View | None:
    """Return the MetricsView of reports, merged over all held-out splits, and for each split; None without reports.

    Guarantee: the pooled count minus the shown counts of sites is never the hidden count of one site.
    """
    figures_of_all = _pooled_figures(reports)
    if figures_of_all is None:
        return None
    splits = sorted({split for report in reports for split in splits_of(report)})
    by_split = {split: figures for split in splits if (figures := _pooled_figures(reports, [split])) is not None}
    if len(reports) > 1:
        of_sites = [view for report in reports if (view := metrics_view([report])) is not None]
        figures_of_all = _without_one_sites_count(figures_of_all, of_sites)
        by_split = {
            split: _without_one_sites_count(
                figures, [view["by_split"][split] for view in of_sites if split in view["by_split"]]
            )
            for split, figures in by_split.items()
        }
    counts = ("patients",) if any(report.classes or report.values for report in reports) else COUNTS
    if any(figures[count] is None for figures in by_split.values() for count in counts):
        # A hidden count would follow from the whole's and the other split's.
        by_split = {split: {**figures, **dict.fromkeys(COUNTS)} for split, figures in by_split.items()}
    for count in counts:
        if figures_of_all[count] is None:  # it would be the sum of its splits
            by_split = {split: {**figures, count: None} for split, figures in by_split.items()}
    noise = max((report.noise_epsilon for report in reports if report.noise_epsilon is not None), default=None)
    return {
        **figures_of_all,
        "by_split": by_split,
        "classes": _of_classes([metrics_view(own) for own in _each_class(reports)]),
        "noise_epsilon": noise,
        "privacy": UNNOISED if noise is None else NOISED,
        "counts": UNDER_MASKS if any(isinstance(report, PooledReport) for report in reports) else IN_CLEAR,
    }


def with_curves(reports: Reports) -> View | None:
    """Return the MetricsView of reports with ROC and calibration, of several classes each one's; None without any."""
    view, whole = metrics_view(reports), pooled(reports)
    if view is None:
        return None
    if whole is None:  # pairs of patients make no curve, and of several classes each has its own
        own = [with_curves(reports_of_class) for reports_of_class in _each_class(reports)]
        return {**view, "roc": [], "calibration": [], "classes": _of_classes(own)}
    # A curve's steps and groups are counts, said otherwise: they are hidden with them. Noised bins count nobody.
    counted = whole.noise_variance > 0 or all(view[count] is not None for count in COUNTS)
    if not counted or not _has_enough(summarise(whole)):
        return {**view, "roc": [], "calibration": []}
    calibration = [list(group) for group in calibration_curve(whole, least=SMALLEST_SHOWN_COUNT)]
    return {**view, "roc": [list(point) for point in roc_curve(whole)], "calibration": calibration}


def _without_one_sites_count(figures: View, of_sites: Sequence[View]) -> View:
    """Hide the pooled counts of which one site's alone is hidden, and the rates that would tell them."""
    lone = [count for count in COUNTS if sum(view[count] is None for view in of_sites) == 1]
    hidden = [*lone, "sensitivity", "specificity", "accuracy"] if lone else []
    return {**figures, **dict.fromkeys(hidden)}


def _pooled_figures(reports: Reports, splits: Sequence[str] | None = None) -> View | None:
    histograms, pairs = pooled(reports, splits), pooled_pairs(reports, splits)
    if pairs is not None:
        return _figures_of_pairs(pairs)
    if classes := pooled_classes(reports, splits):
        return _figures_of_classes(classes)
    if values := pooled_values(reports, splits):
        return _figures_of_values(values)
    return None if histograms is None else _figures(histograms)


def _figures_of_pairs(pairs: PairCounts) -> View:
    metrics = summarise_pairs(pairs)
    enough = min(metrics.events, metrics.patients - metrics.events) >= SMALLEST_SHOWN_COUNT
    return {
        **dict.fromkeys(RATES),
        "concordance": metrics.concordance if enough else None,
        "patients": _shown(metrics.patients),
        "positives": metrics.events if enough else None,
    }


def _figures_of_classes(classes: Sequence[ScoreHistograms]) -> View:
    """Return the macro AUC of the classes that are large enough to be shown, and how many these are."""
    found = [(own, summarise(own)) for own in classes]
    macro = macro_auc([own for own, metrics in found if _has_enough(metrics)])
    noised = any(own.noise_variance > 0 for own in classes)
    # Of findings, who is not known for one may be known for another.
    patients = max(metrics.patients for _, metrics in found)
    return {
        **dict.fromkeys(RATES),
        "auc": macro.auc,
        "auc_low": macro.low,
        "auc_high": macro.high,
        "concordance": None,
        "patients": None if noised else _shown(patients),
        "positives": None,
        "classes_shown": macro.classes,
    }


def _figures_of_values(values: Sequence[ValueHistogram]) -> View:
    """Return the mean Dice coefficient or error, of all classes together and of each; nothing of few patients."""
    whole, noised = mean_of(values), any(own.noise_variance > 0 for own in values)
    enough = whole.patients >= SMALLEST_SHOWN_COUNT
    each = [_mean_view(summarise_values(own), enough=enough) for own in values]
    return {
        **dict.fromkeys(RATES),
        "concordance": None,
        "figure": values[0].figure,
        **_mean_view(whole, enough=enough),
        "figures": each,
        "patients": None if noised else _shown(whole.patients),
        "positives": None,
    }


def _mean_view(metrics: ValueMetrics, *, enough: bool) -> View:
    shown = {"mean": metrics.mean, "mean_low": metrics.mean_low, "mean_high": metrics.mean_high}
    found = {**shown, "median": metrics.median}
    return found if enough else dict.fromkeys(found)


def _each_class(reports: Reports) -> list[Reports]:
    """Return the reports as if they were on one class against all others, for each class."""
    number = max((len(own) for report in reports for own in report.classes.values()), default=0)
    return [[of_class(report, place) for report in reports if report.classes] for place in range(number)]


def _of_classes(views: Sequence[View | None]) -> list[View]:
    """Return the classes' views, with a second count hidden where one alone is: it would follow from the others."""
    found = [view for view in views if view is not None]
    splits = sorted({split for view in found for split in view["by_split"]})
    whole = _without_lone_class(found)
    for split in splits:
        own = _without_lone_class([view["by_split"][split] for view in whole])
        whole = [
            {**view, "by_split": {**view["by_split"], split: figures}} for view, figures in zip(whole, own, strict=True)
        ]
    return whole


def _without_lone_class(views: Sequence[View]) -> list[View]:
    shown = [view["positives"] for view in views if view["positives"] is not None]
    if len(views) - len(shown) != 1 or not shown:
        return list(views)
    place = next(number for number, view in enumerate(views) if view["positives"] == min(shown))
    hidden = {"positives", "sensitivity", "specificity", "accuracy", *({"roc", "calibration"} & views[place].keys())}
    blank: View = {key: [] if key in {"roc", "calibration"} else None for key in hidden}
    return [{**view, **blank} if number == place else view for number, view in enumerate(views)]


def _figures(histograms: ScoreHistograms) -> View:
    metrics = summarise(histograms)
    figures = {
        "auc": metrics.auc,
        "auc_low": metrics.auc_low,
        "auc_high": metrics.auc_high,
        "brier": metrics.brier,
        "ece": metrics.ece,
        "sensitivity": metrics.sensitivity,
        "specificity": metrics.specificity,
        "accuracy": metrics.accuracy,
        "concordance": None,
    }
    if not _has_enough(metrics):  # a rate over few patients is their count, said otherwise
        figures = dict.fromkeys(figures)
    # Where noise was added, the sums of the bins are no numbers of patients.
    noised = histograms.noise_variance > 0
    return {
        **figures,
        "patients": None if noised else _shown(metrics.patients),
        "positives": metrics.positives if _has_enough(metrics) and not noised else None,
    }


def _has_enough(metrics: BinaryMetrics) -> bool:
    """Tell whether both classes are large enough for what is shown."""
    return min(metrics.positives, metrics.patients - metrics.positives) >= SMALLEST_SHOWN_COUNT


def shown_trainees(count: int) -> int | None:
    """Return a site's number of training patients as people see it, None for a small one; 0: it does not train."""
    return _shown(count) if count else 0


def _shown(count: int) -> int | None:
    return count if count >= SMALLEST_SHOWN_COUNT else None
