"""Round 0: a site builds version 0, the sites judge it, and the first training round opens."""

import pytest

from hub.rounds.deadlines import tick
from hub.rounds.views import version_metrics
from protocol.messages import TaskKind
from tests.hub.conftest import Clock
from tests.hub.rounds.bench import ZERO, Bench, assert_equal, filled, study_of

HOUR = 3600.0


def test_version_zero_is_judged_before_the_first_round_opens(bench: Bench) -> None:
    bench.start(study_of(), patients=(10, 30, 0))
    (task,) = bench.tasks(TaskKind.INITIALISE)
    bench.update(task, ZERO)
    asked = bench.tasks(TaskKind.EVALUATE)
    assert [(t.site, t.round, t.sequence, t.base and t.base.number) for t in asked] == [
        (name, 0, 1, 0) for name in ("anna", "bela", "clara")
    ]
    assert [r["state"] for r in bench.rounds()] == ["evaluating"]
    bench.update(task, ZERO)  # sent again: the same receipt, nothing asked twice
    assert bench.tasks(TaskKind.EVALUATE) == asked
    bench.report_all()
    assert [r["state"] for r in bench.rounds()] == ["complete", "training"]
    assert bench.round(0)["metrics"]["auc"] == pytest.approx(8 / 9)
    with bench.services.reading() as session:
        assert version_metrics(session, bench.study.digest, 0) == bench.round(0)["metrics"]


def test_judging_version_zero_ends_at_its_deadline(bench: Bench, clock: Clock) -> None:
    bench.start(study_of())
    clock.now += HOUR / 2
    bench.update(bench.tasks(TaskKind.INITIALISE)[0], ZERO)
    clock.now += HOUR / 2
    assert tick(bench.services) == 0
    clock.now += HOUR / 2
    assert tick(bench.services) == 1
    assert [r["state"] for r in bench.rounds()] == ["complete", "training"]
    assert bench.tasks(TaskKind.EVALUATE) == []


def test_version_zero_goes_unjudged_where_nobody_evaluates(bench: Bench) -> None:
    bench.start(study_of(), evaluates=False)
    bench.update(bench.tasks(TaskKind.INITIALISE)[0], ZERO)
    assert [r["state"] for r in bench.rounds()] == ["complete", "training"]


def test_version_zero_is_asked_of_the_next_site_after_a_refusal(bench: Bench) -> None:
    bench.start(study_of())
    (first,) = bench.tasks(TaskKind.INITIALISE)
    bench.refuse(first)
    (second,) = bench.tasks(TaskKind.INITIALISE)
    assert (first.site, second.site) == ("anna", "bela")
    bench.update(second, filled(0.5))
    assert bench.round()["state"] == "evaluating"
    assert_equal(bench.weights(0), filled(0.5))


def test_version_zero_is_asked_of_the_next_site_after_silence(bench: Bench, clock: Clock) -> None:
    bench.start(study_of())
    clock.now += HOUR
    tick(bench.services)
    assert [task.site for task in bench.tasks(TaskKind.INITIALISE)] == ["bela"]


def test_a_study_fails_if_no_site_builds_version_zero(bench: Bench) -> None:
    bench.start(study_of())
    for _ in bench.hospitals:
        bench.refuse(bench.tasks(TaskKind.INITIALISE)[0])
    assert bench.view()["state"] == "failed"
