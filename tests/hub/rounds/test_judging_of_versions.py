"""When versions are judged, by whom, and what is shown of it."""

import pytest

from hub.rounds.deadlines import tick
from protocol.messages import RoundTask, TaskKind
from protocol.metrics import BINS, ScoreHistograms
from tests.hub.conftest import Clock
from tests.hub.rounds.bench import Bench, study_of

HOUR = 3600.0


def test_versions_are_judged_as_often_as_the_study_says_and_the_last_always(bench: Bench) -> None:
    bench.begin(study_of(rounds=3, evaluation={"every": 2}))
    judged = []
    for number in (1, 2, 3):
        bench.train_all(1.0, 1.0, 1.0)
        bench.close()
        if bench.tasks(TaskKind.EVALUATE):
            judged.append(number)
            bench.report_all()
    assert judged == [2, 3]
    assert bench.view()["state"] == "completed"


@pytest.mark.parametrize(("rounds", "every"), [(1, 1), (3, 1), (3, 2), (4, 2), (2, 5)])
def test_the_planned_evaluations_are_those_asked_for(bench: Bench, rounds: int, every: int) -> None:
    evaluation = {"every": every, "at_most": (rounds - 1) // every + 2}
    bench.begin(study_of(rounds=rounds, evaluation=evaluation))
    for _ in range(rounds):
        bench.train_all(1.0, 1.0, 1.0)
        bench.close()
        bench.report_all()
    tasks = [t for t in bench.mail(bench.hospital("anna"), RoundTask) if t.kind is TaskKind.EVALUATE]
    assert tasks[-1].sequence == len(tasks) == evaluation["at_most"]


def test_the_final_version_may_be_the_best_on_validation(bench: Bench) -> None:
    bench.begin(study_of(evaluation={"final_version": "best-validation"}))
    for positive, negative in (([0.9, 0.8], [0.1, 0.2]), ([0.9, 0.1], [0.2, 0.8])):
        bench.train_all(1.0, 1.0, 1.0)
        bench.close()
        for task in bench.tasks(TaskKind.EVALUATE):
            bench.report(task, positive, negative)
    assert bench.view()["final_version"] == 1


def test_evaluation_ends_at_its_own_deadline(bench: Bench, clock: Clock) -> None:
    bench.begin(study_of())
    bench.train_all(1.0, 1.0, 1.0)
    bench.close()
    bench.report(bench.tasks(TaskKind.EVALUATE)[0], [0.9] * 5, [0.1] * 5)
    clock.now += HOUR
    tick(bench.services)
    assert bench.round(1)["state"] == "complete"
    assert bench.round(1)["metrics"]["auc"] == 1.0
    assert bench.round(2)["state"] == "training"


def test_metrics_are_pooled_from_histograms_and_small_counts_hidden(bench: Bench) -> None:
    bench.begin(study_of())
    bench.train_all(1.0, 1.0, 1.0)
    bench.close()
    bench.report_all()
    view = bench.round(1)
    assert view["metrics"]["patients"] == 18
    assert view["metrics"]["positives"] == 9
    assert view["metrics"]["privacy"] == "held-out patients: no DP"
    assert view["metrics"]["by_split"]["validation"]["auc"] == view["metrics"]["auc"]
    site = view["sites"][0]["metrics"]
    assert (site["patients"], site["positives"], site["auc"]) == (6, None, None)
    # Of 3 x 3 pairs of a site 8 are ordered rightly (0.4 stands below 0.6), and all sites have the same scores.
    assert view["metrics"]["auc"] == pytest.approx(8 / 9)


@pytest.mark.parametrize("variance", [1e-300, 1e37])
def test_a_site_that_claims_noise_of_its_own_choice_is_refused_and_the_page_holds(
    bench: Bench, variance: float
) -> None:
    bench.begin(study_of())
    bench.train_all(1.0, 1.0, 1.0)
    bench.close()
    forged = ScoreHistograms(bins=BINS, negative=[(0, 1)], positive=[(BINS - 1, 1)], noise_variance=variance)
    receipt = bench.report(bench.tasks(TaskKind.EVALUATE)[0], [], [], histograms={"validation": forged})
    assert (receipt.accepted, "another noise than the study's" in receipt.reason) == (False, True)
    assert bench.round(1)["metrics"] is None
