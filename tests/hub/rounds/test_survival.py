"""Survival at the hub: pairs are added over hospitals, small counts hidden, and the best version chosen by them."""

from typing import Any

import pytest

from hub.rounds.metric_views import metrics_view
from hub.rounds.scoring import best_version, pooled_pairs, quality_of
from protocol.concordance import PairCounts
from protocol.messages import EvaluationReport, ModelReference, RoundTask, TaskKind
from protocol.study_parts import HeldOutSplit
from tests.hub.rounds.bench import ZERO, Bench, study_of

DIGEST = "sha256:" + "0" * 64
SURVIVAL: dict[str, Any] = {
    "kind": "tabular",
    "cohort": {"minimum_patients": 1},
    "label": {"column": "died", "time_column": "days", "classes": ["no", "yes"]},
    "table": {"features": [{"column": "age"}]},
    "preprocessing": {},
    "network": {"name": "linear"},
    "training": {"local_steps": 2, "sampling_rate": 0.2, "images_per_patient": 1},
    "privacy": {"epsilon": None},
}
GOOD = PairCounts(patients=30, events=12, comparable=100, concordant=80, tied=10)
POOR = PairCounts(patients=20, events=8, comparable=50, concordant=20, tied=0)
FEW = PairCounts(patients=9, events=2, comparable=8, concordant=8)


def report(site: str, version: int = 1, **pairs: PairCounts) -> EvaluationReport:
    splits: dict[HeldOutSplit, PairCounts] = {"test": pairs["test"]} if "test" in pairs else {}
    if "validation" in pairs:
        splits["validation"] = pairs["validation"]
    return EvaluationReport(
        site=site, task_id="t", task_digest=DIGEST, study_digest=DIGEST, pairs=splits, noise_epsilon=None,
        version=ModelReference(number=version, weights_digest=DIGEST, weights_bytes=1, manifest_digest=DIGEST),
    )  # fmt: skip


def test_the_pooled_concordance_is_of_the_hospitals_pairs_together() -> None:
    reports = [report("a", test=GOOD), report("b", test=POOR)]
    view = metrics_view(reports)
    assert view is not None
    assert (view["patients"], view["positives"]) == (50, 20)
    assert view["concordance"] == (80 + 5 + 20) / 150
    assert view["by_split"]["test"]["concordance"] == view["concordance"]
    assert view["auc"] is None
    assert view["privacy"] == "held-out patients: no DP"
    assert pooled_pairs(reports, ["validation"]) is None


def test_one_hospitals_few_events_are_not_shown_nor_told_by_the_sum() -> None:
    alone = metrics_view([report("c", test=FEW)])
    assert alone is not None
    assert (alone["patients"], alone["positives"], alone["concordance"]) == (9, None, None)
    together = metrics_view([report("a", test=GOOD), report("c", test=FEW)])
    assert together is not None
    assert together["positives"] is None


def test_versions_are_compared_by_concordance_on_validation_patients() -> None:
    reports = [report("a", 1, validation=POOR), report("a", 2, validation=GOOD), report("a", 3, validation=POOR)]
    assert quality_of(reports[1:2]) == 0.85
    assert best_version(reports, default=3) == 2
    assert best_version([report("a", 1, test=GOOD)], default=1) == 1


def evaluation_of_version_0(bench: Bench) -> RoundTask:
    bench.start(study_of(**SURVIVAL))
    (task,) = bench.tasks(TaskKind.INITIALISE)
    bench.update(task, ZERO)
    return bench.tasks(TaskKind.EVALUATE)[0]


def test_a_report_of_pairs_is_taken_and_shown(bench: Bench) -> None:
    task = evaluation_of_version_0(bench)
    assert bench.report(task, [], [], histograms={}, pairs={"validation": GOOD}).accepted
    assert bench.round()["metrics"]["concordance"] == 0.85


@pytest.mark.parametrize(
    "fields",
    [{}, {"histograms": {}}, {"pairs": {"validation": GOOD}}],
    ids=["histograms", "nothing", "both"],
)
def test_a_report_of_something_else_is_refused(bench: Bench, fields: dict[str, Any]) -> None:
    receipt = bench.report(evaluation_of_version_0(bench), [0.9], [0.1], **fields)
    assert not receipt.accepted
    said = "hold nothing" if fields == {"histograms": {}} else "of another kind than the study's"
    assert said in receipt.reason


def test_pairs_in_a_study_that_is_none_of_survival_are_refused(bench: Bench) -> None:
    bench.start(study_of())
    (task,) = bench.tasks(TaskKind.INITIALISE)
    bench.update(task, ZERO)
    receipt = bench.report(bench.tasks(TaskKind.EVALUATE)[0], [0.9], [0.1], pairs={"validation": GOOD})
    assert not receipt.accepted
    assert "of another kind than the study's" in receipt.reason
