"""What is shown of several classes: the mean, each class, and no small count by subtraction."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hub.rounds.metric_views import metrics_view, with_curves
from hub.rounds.scoring import best_version, pooled_classes, quality_of
from protocol.class_metrics import class_bins, macro_auc
from protocol.messages import EvaluationReport, ModelReference
from protocol.metrics import ScoreHistograms
from protocol.study_parts import HeldOutSplit

DIGEST = "sha256:" + "0" * 64


def histograms(labels: Sequence[int], sharpness: float, seed: int = 0) -> list[ScoreHistograms]:
    """Return three classes' counts of patients with these classes, scored the better the larger the sharpness is."""
    generator, own = np.random.default_rng(seed), np.array(labels)
    found = []
    for place in range(3):
        logits = sharpness * (own == place) + generator.normal(size=len(own))
        scores = 1 / (1 + np.exp(-logits))
        found.append(ScoreHistograms.from_scores(scores, (own == place).astype(np.int64), class_bins(3)))
    return found


def report(site: str, number: int = 1, **splits: list[ScoreHistograms]) -> EvaluationReport:
    classes: dict[HeldOutSplit, list[ScoreHistograms]] = dict(splits)  # type: ignore[assignment]
    return EvaluationReport(
        site=site, task_id="t", task_digest=DIGEST, study_digest=DIGEST, classes=classes, noise_epsilon=None,
        version=ModelReference(number=number, weights_digest=DIGEST, weights_bytes=1, manifest_digest=DIGEST),
    )  # fmt: skip


def view(*reports: EvaluationReport) -> dict[str, Any]:
    found = metrics_view(reports)
    assert found is not None
    return found


EVEN = [0] * 20 + [1] * 20 + [2] * 20


def test_the_mean_is_of_the_sites_merged_histograms() -> None:
    reports = [report("a", test=histograms(EVEN, 2.0, 1)), report("b", test=histograms(EVEN, 2.0, 2))]
    shown, merged = view(*reports), macro_auc(pooled_classes(reports))
    assert (shown["auc"], shown["auc_low"], shown["auc_high"]) == (merged.auc, merged.low, merged.high)
    assert (shown["patients"], shown["classes_shown"]) == (120, 3)
    assert [own["positives"] for own in shown["classes"]] == [40, 40, 40]
    assert shown["by_split"]["test"]["auc"] == shown["auc"]


def test_a_class_with_few_patients_is_in_no_figure_that_is_shown() -> None:
    found = view(report("a", test=histograms([0] * 20 + [1] * 20 + [2] * 3, 2.0)))
    assert found["classes_shown"] == 2
    assert found["classes"][2]["auc"] is None
    assert found["auc"] == pytest.approx(np.mean([own["auc"] for own in found["classes"][:2]]))


def test_where_one_classs_count_is_hidden_that_of_the_smallest_other_is_hidden_too() -> None:
    found = with_curves([report("a", test=histograms([0] * 30 + [1] * 20 + [2] * 3, 2.0))])
    assert found is not None
    own = found["classes"]
    assert [one["positives"] for one in own] == [30, None, None]
    assert [one["by_split"]["test"]["positives"] for one in own] == [30, None, None]
    assert (own[1]["sensitivity"], own[1]["roc"], own[1]["calibration"]) == (None, [], [])
    assert own[1]["auc"] is not None
    assert own[0]["roc"]


def test_versions_are_compared_by_the_mean_on_validation_patients() -> None:
    good, poor = histograms(EVEN, 4.0), histograms(EVEN, 0.5)
    reports = [report("a", 1, validation=poor), report("a", 2, validation=good), report("a", 3, test=good)]
    assert best_version(reports, default=3) == 2
    assert quality_of(reports[1:2]) == macro_auc(good).auc
