"""From the sites' reports to pooled figures: histograms are merged, never scores. Pure.

Under masks the hub has no report of a site: what the sites' counts sum to stands in its place (`PooledReport`).
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

from pydantic import BaseModel, ConfigDict

from hub.storage.tables import EvaluationRow, PooledEvaluationRow
from protocol.messages import EvaluationReport, expect
from protocol.metrics import ScoreHistograms, merge, summarise
from protocol.study_parts import HeldOutSplit


class PooledReport(BaseModel):
    """The sum of the sites' counts on a version, opened from under their masks, and whose they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    sites: tuple[str, ...]
    histograms: dict[HeldOutSplit, ScoreHistograms]
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


def best_version(reports: Reports, default: int) -> int:
    """Return the version with the highest pooled AUC on validation patients; the earlier of equals.

    `default` is returned if no version has such an AUC. Version 0 is what training is compared with, never the best.
    """
    best, best_auc = default, -1.0
    trained = sorted((report for report in reports if version_of(report) > 0), key=version_of)
    for version, group in groupby(trained, key=version_of):
        histograms = pooled(list(group), ["validation"])
        auc = summarise(histograms).auc if histograms is not None else None
        if auc is not None and auc > best_auc:
            best, best_auc = version, auc
    return best
