"""A study with patience ends, with its best version, once its evaluations improve no more."""

from typing import Any

import numpy as np
import pytest

from hub.rounds.scoring import best_version, evaluations_without_gain
from protocol.messages import EvaluationReport, ModelReference, TaskKind
from protocol.metrics import ScoreHistograms
from tests.hub.rounds.bench import Bench, filled, study_of

GOOD, FAIR, POOR = ([0.9, 0.8], [0.1, 0.2]), ([0.9, 0.3], [0.1, 0.4]), ([0.9, 0.1], [0.2, 0.8])
"""Validation scores of two positive and two negative patients: AUC 1, 0.75 and 0.5."""
Scores = tuple[list[float], list[float]]


def play(bench: Bench, *judged: Scores) -> None:
    """Make a version for each, and judge it."""
    for scores in judged:
        for task in bench.tasks(TaskKind.TRAIN):
            bench.update(task, filled(1.0))
        bench.close()
        for task in bench.tasks(TaskKind.EVALUATE):
            bench.report(task, *scores)


def patient(patience: int, rounds: int = 6, **changes: Any) -> Any:
    return study_of(rounds=rounds, evaluation={"patience": patience}, **changes)


def test_it_ends_after_as_many_evaluations_without_a_better_one_as_the_study_has_patience_for(bench: Bench) -> None:
    bench.begin(patient(2))
    play(bench, POOR, GOOD, FAIR)
    assert bench.view()["state"] == "running"
    play(bench, FAIR)
    view = bench.view()
    assert (view["state"], view["final_version"]) == ("completed", 2)
    assert view["reason"] == "It ended early: 2 evaluations without a better validation AUC."
    assert bench.tasks(TaskKind.TRAIN) == []
    assert [r["state"] for r in bench.rounds()] == ["complete"] * 5


def test_a_better_version_renews_the_patience(bench: Bench) -> None:
    bench.begin(patient(2))
    play(bench, POOR, POOR, FAIR, FAIR, GOOD)
    assert bench.view()["state"] == "running"


def test_the_last_round_ends_the_study_as_ever(bench: Bench) -> None:
    bench.begin(patient(1, rounds=2))
    play(bench, GOOD, POOR)
    view = bench.view()
    assert (view["state"], view["final_version"], view["reason"]) == ("completed", 2, "")


def test_versions_that_are_not_judged_try_nobody_s_patience(bench: Bench) -> None:
    bench.begin(study_of(rounds=6, evaluation={"patience": 1, "every": 2}))
    play(bench, GOOD, GOOD, POOR)
    assert bench.view()["state"] == "running"
    play(bench, POOR)
    assert (bench.view()["state"], bench.view()["final_version"]) == ("completed", 2)


def judge_without_validation(bench: Bench, rounds: int, scores: Scores | None) -> None:
    for _ in range(rounds):
        for task in bench.tasks(TaskKind.TRAIN):
            bench.update(task, filled(1.0))
        bench.close()
        for task in bench.tasks(TaskKind.EVALUATE):
            counts = report_on(1, GOOD).histograms["validation"]
            lone = {} if scores is None else {"validation": report_on(1, scores).histograms["validation"]}
            bench.report(task, *GOOD, histograms={"test": counts, **lone})


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ({"patience": 1}, "evaluation.patience"),
        ({"final_version": "best-validation"}, "evaluation.final_version: best-validation"),
        (
            {"patience": 1, "final_version": "best-validation"},
            "evaluation.patience and evaluation.final_version: best-validation",
        ),
    ],
)
def test_without_validation_patients_the_end_says_what_had_no_effect(
    bench: Bench, terms: dict[str, Any], named: str
) -> None:
    bench.begin(study_of(rounds=3, evaluation=terms, splits={"validation": 0, "test": 0.2}))
    judge_without_validation(bench, 3, None)
    view = bench.view()
    assert (view["state"], view["final_version"]) == ("completed", 3)
    assert view["reason"] == f"No validation patient: {named} had no effect."


def test_validation_patients_of_one_class_compare_nothing_and_the_end_says_so(bench: Bench) -> None:
    bench.begin(patient(1, rounds=2))
    judge_without_validation(bench, 2, ([0.9, 0.8], []))
    assert bench.view()["reason"] == (
        "The validation patients give no figure to compare versions by: evaluation.patience had no effect."
    )


def test_without_validation_patients_nothing_is_said_where_nothing_was_asked_of_them(bench: Bench) -> None:
    bench.begin(study_of(rounds=2))
    judge_without_validation(bench, 2, None)
    assert (bench.view()["state"], bench.view()["reason"]) == ("completed", "")


def test_in_buffered_rounds_what_still_trains_is_cancelled(bench: Bench) -> None:
    bench.begin(patient(1, pace={"mode": "buffered", "buffer": 2}))
    for scores in (GOOD, POOR):
        for task in bench.tasks(TaskKind.TRAIN)[:2]:
            bench.update(task, filled(1.0))
        bench.close()
        for task in bench.tasks(TaskKind.EVALUATE):
            bench.report(task, *scores)
    view = bench.view()
    assert (view["state"], view["final_version"]) == ("completed", 1)
    assert bench.tasks(TaskKind.TRAIN) == []
    assert bench.round(3)["reason"].startswith("It ended early")


def report_on(version: int, scores: Scores) -> EvaluationReport:
    positive, negative = scores
    histograms = ScoreHistograms.from_scores(
        np.array([*positive, *negative]), np.array([1] * len(positive) + [0] * len(negative))
    )
    digest = "sha256:" + "0" * 64
    reference = ModelReference(number=version, weights_digest=digest, weights_bytes=1, manifest_digest=digest)
    return EvaluationReport(
        site="anna",
        task_id=f"t.{version}",
        task_digest=digest,
        study_digest=digest,
        version=reference,
        histograms={"validation": histograms},
        noise_epsilon=None,
    )


@pytest.mark.parametrize(
    ("judged", "best", "in_vain"),
    [
        ([], 0, 0),
        ([GOOD], 1, 0),
        ([GOOD, GOOD], 1, 1),  # as good is not better
        ([POOR, GOOD, FAIR, FAIR], 2, 2),
        ([GOOD, POOR, POOR, FAIR], 1, 3),
    ],
)
def test_evaluations_are_counted_from_the_best_version(judged: list[Scores], best: int, in_vain: int) -> None:
    reports = [report_on(number, scores) for number, scores in enumerate(judged, start=1)]
    assert best_version(reports, default=0) == best
    assert evaluations_without_gain([report_on(0, GOOD), *reports]) == in_vain
