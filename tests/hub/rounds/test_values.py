"""Figures of patients at the hub: Dice and errors are added over hospitals, few patients hidden, versions compared."""

from typing import Any

import numpy as np
import pytest

from hub.rounds.metric_views import metrics_view, with_curves
from hub.rounds.scoring import PooledReport, best_version, evaluations_without_gain, quality_of, unheard_terms
from protocol.messages import EvaluationReport, ModelReference, RoundTask, TaskKind
from protocol.study_parts import HeldOutSplit
from protocol.value_histograms import ValueHistogram
from tests.hub.rounds.bench import ZERO, Bench, study_of

DIGEST = "sha256:" + "0" * 64
MASKS: dict[str, Any] = {
    "kind": "segmentation",
    "label": {"classes": ["background", "front", "back"]},
    "network": {"name": "unet"},
    "privacy": {"epsilon": None},
}


def dice(*values: float) -> ValueHistogram:
    return ValueHistogram(counts=[]).of(np.array(values, np.float64))


def months(*values: float) -> ValueHistogram:
    return ValueHistogram(figure="absolute-error", high=200.0, counts=[]).of(np.array(values, np.float64))


def report(
    site: str, version: int = 1, split: HeldOutSplit = "validation", *values: ValueHistogram
) -> EvaluationReport:
    return EvaluationReport(
        site=site, task_id="t", task_digest=DIGEST, study_digest=DIGEST, values={split: list(values)},
        noise_epsilon=None,
        version=ModelReference(number=version, weights_digest=DIGEST, weights_bytes=1, manifest_digest=DIGEST),
    )  # fmt: skip


def test_the_pooled_mean_is_of_all_hospitals_patients_and_classes() -> None:
    reports = [
        report("a", 1, "test", dice(*[0.9] * 6), dice(*[0.7] * 6)),
        report("b", 1, "test", dice(*[0.6] * 12), dice(*[0.4] * 12)),
    ]
    view = metrics_view(reports)
    assert view is not None
    assert (view["figure"], view["patients"], view["auc"], view["positives"]) == ("dice", 18, None, None)
    assert [figure["mean"] for figure in view["figures"]] == pytest.approx([0.7, 0.5], abs=0.002)
    assert view["mean"] == pytest.approx(0.6, abs=0.002)
    assert view["mean_low"] < 0.6 < view["mean_high"]
    assert view["by_split"]["test"]["mean"] == view["mean"]
    curves = with_curves(reports)
    assert curves is not None
    assert (curves["roc"], curves["calibration"]) == ([], [])


def test_figures_of_few_patients_are_not_shown_and_their_number_does_not_follow() -> None:
    few = report("c", 1, "test", dice(0.1, 0.2), dice(0.1, 0.2))
    alone = metrics_view([few])
    assert alone is not None
    assert (alone["patients"], alone["mean"], alone["figures"][0]["median"]) == (None, None, None)
    together = metrics_view([report("a", 1, "test", dice(*[0.9] * 6), dice(*[0.7] * 6)), few])
    assert together is not None
    assert together["patients"] is None


def test_versions_are_compared_by_mean_dice_on_validation_patients() -> None:
    reports = [report("a", n, "validation", dice(*[d] * 5), dice(*[d] * 5)) for n, d in ((1, 0.3), (2, 0.8), (3, 0.7))]
    assert quality_of(reports[1:2]) == pytest.approx(0.8, abs=0.002)
    assert best_version(reports, default=3) == 2
    assert evaluations_without_gain(reports) == 1


def test_the_smallest_error_is_the_best_however_large_it_is() -> None:
    reports = [report("a", n, "validation", months(*[e] * 5)) for n, e in ((1, 40.0), (2, 20.0), (3, 30.0))]
    assert quality_of(reports[:1]) == pytest.approx(-40.0, abs=0.3)
    assert best_version(reports, default=0) == 2


def test_validation_patients_without_a_figure_are_said_to_choose_nothing() -> None:
    study = study_of(**MASKS, evaluation={"patience": 2, "splits": ["validation", "test"]})
    assert "No validation patient" in unheard_terms(study, [report("a", 1, "test", dice(0.5), dice(0.5))])
    assert not unheard_terms(study, [report("a", 1, "validation", dice(0.5), dice(0.5))])


def test_a_sum_from_under_masks_is_a_report_like_any_other() -> None:
    pooled = PooledReport(version=1, sites=("a", "b"), values={"test": [dice(*[0.5] * 9)]}, noise_epsilon=None)
    view = metrics_view([pooled])
    assert view is not None
    assert (view["counts"], view["patients"]) == ("summed under masks", 9)
    assert PooledReport.model_validate_json(pooled.model_dump_json()) == pooled


def evaluation_of_version_0(bench: Bench) -> RoundTask:
    bench.start(study_of(**MASKS))
    (task,) = bench.tasks(TaskKind.INITIALISE)
    bench.update(task, ZERO)
    return bench.tasks(TaskKind.EVALUATE)[0]


def test_a_report_of_figures_is_taken_and_shown(bench: Bench) -> None:
    task = evaluation_of_version_0(bench)
    values = {"validation": [dice(*[0.5] * 8), dice(*[0.7] * 8)]}
    assert bench.report(task, [], [], histograms={}, values=values).accepted
    assert bench.round()["metrics"]["mean"] == pytest.approx(0.6, abs=0.002)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"histograms": {}, "values": {"validation": [dice(0.5)]}}, "another number of histograms"),
        ({"histograms": {}, "values": {"validation": [months(5.0), months(5.0)]}}, "other bins"),
        ({"histograms": {}}, "nothing"),
        ({"values": {"validation": [dice(0.5), dice(0.5)]}}, "another kind"),
    ],
    ids=["classes", "errors", "nothing", "both"],
)
def test_a_report_of_something_else_is_refused(bench: Bench, fields: dict[str, Any], said: str) -> None:
    receipt = bench.report(evaluation_of_version_0(bench), [0.9], [0.1], **fields)
    assert not receipt.accepted
    assert said in receipt.reason
