"""From the sites' reports to pooled figures: histograms are merged, never scores. Pure."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from hub.storage.tables import EvaluationRow
from protocol.messages import EvaluationReport, expect
from protocol.metrics import ScoreHistograms, merge, summarise

Reports = Sequence[EvaluationReport]


def reports_of(rows: Iterable[EvaluationRow]) -> list[EvaluationReport]:
    """Return the reports in rows of the hub's own store; their signatures were checked when they came."""
    return [expect(row.report, EvaluationReport) for row in rows]


def pooled(reports: Reports, splits: Sequence[str] | None = None) -> ScoreHistograms | None:
    """Merge the reports' histograms of some splits (None: of all), or None if there are none."""
    chosen = [
        h for report in reports for split, h in sorted(report.histograms.items()) if not splits or split in splits
    ]
    return merge(chosen) if chosen else None


def best_version(rows: Sequence[EvaluationRow], default: int) -> int:
    """Return the version with the highest pooled AUC on validation patients; the earlier of equals.

    `default` is returned if no version has such an AUC. Version 0 is what training is compared with, never the best.
    """
    best, best_auc = default, -1.0
    for version, group in groupby((row for row in rows if row.version > 0), key=lambda row: row.version):
        histograms = pooled(reports_of(group), ["validation"])
        auc = summarise(histograms).auc if histograms is not None else None
        if auc is not None and auc > best_auc:
            best, best_auc = version, auc
    return best
