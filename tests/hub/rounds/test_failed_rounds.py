"""A round that failed: made up for by the next number as long as spare tasks last, else the study has failed."""

import numpy as np
import pytest

from hub.rounds.participants import sites_problem
from hub.storage import stores
from protocol.messages import TaskKind
from tests.hub.rounds.bench import Bench, filled, study_of

pytestmark = pytest.mark.both_databases

SPARE = {"epsilon": None, "spare_tasks": 1}


def fail_round(bench: Bench) -> None:
    for task in bench.tasks(TaskKind.TRAIN):
        bench.refuse(task)


def test_the_next_number_starts_from_the_newest_version_and_makes_up_for_the_round_that_failed(bench: Bench) -> None:
    bench.begin(study_of(privacy=SPARE))
    fail_round(bench)
    tasks = bench.tasks(TaskKind.TRAIN)
    assert [(task.round, task.sequence) for task in tasks] == [(2, 2)] * 3
    assert {task.base.number for task in tasks if task.base} == {0}
    for number, value in ((2, 1.0), (3, 2.0)):
        for task in bench.tasks(TaskKind.TRAIN):
            bench.update(task, filled(value))
        assert bench.close()
        bench.report_all()
        assert np.allclose(bench.weights(number)["bias"], value if number == 2 else 3.0)
    view = bench.view()
    assert (view["state"], view["final_version"]) == ("completed", 3)
    assert [(r["number"], r["state"]) for r in bench.rounds()] == [
        (0, "complete"),
        (1, "failed"),
        (2, "complete"),
        (3, "complete"),
    ]
    with bench.services.reading() as session:
        assert [row.number for row in stores.versions(session, bench.study.digest)] == [0, 2, 3]


def test_more_failures_than_spare_tasks_end_the_study(bench: Bench) -> None:
    bench.begin(study_of(privacy=SPARE))
    fail_round(bench)
    assert bench.view()["state"] == "running"
    fail_round(bench)
    assert bench.view()["state"] == "failed"
    assert "Round 2 failed." in bench.view()["reason"]
    assert bench.tasks(TaskKind.TRAIN) == []


def test_without_a_spare_task_one_failure_ends_the_study(bench: Bench) -> None:
    bench.begin(study_of())
    fail_round(bench)
    assert (bench.view()["state"], bench.round()["state"]) == ("failed", "failed")


def test_evaluation_follows_the_versions_that_were_made_not_the_numbers(bench: Bench) -> None:
    bench.begin(study_of(privacy=SPARE, evaluation={"every": 2}))
    fail_round(bench)
    for task in bench.tasks(TaskKind.TRAIN):
        bench.update(task, filled(1.0))
    assert bench.close()
    assert bench.tasks(TaskKind.EVALUATE) == []  # version 2 is the first that was trained
    for task in bench.tasks(TaskKind.TRAIN):
        bench.update(task, filled(1.0))
    assert bench.close()
    assert {task.round for task in bench.tasks(TaskKind.EVALUATE)} == {3}


@pytest.mark.parametrize(("asked", "words"), [(3, "needs 4"), (6, "at most 5")])
def test_too_few_or_too_many_sites_for_the_study_s_masks_are_told(asked: int, words: str) -> None:
    study = study_of(
        participants={"minimum_sites": 4},
        secure_aggregation={"method": "masking", "maximum_sites": 5, "maximum_weight": 10},
    )
    assert words in (sites_problem(study, asked) or "")
    assert sites_problem(study, 5) is None
    assert sites_problem(study_of(), asked) is None
