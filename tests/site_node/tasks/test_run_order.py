"""One order in a child process: done once, whatever is delivered again, and stopped when it may not go on."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.messages import Reason
from site_node.candidate import read_candidate, read_cohort_figures
from site_node.orders import order_path
from site_node.settings import SiteSettings
from site_node.tasks.run_order import MAX_CRASHES, Worker, work_on
from site_node.tasks.supervisor import AGAIN_SECONDS, GRACE_SECONDS, Supervisor
from tests.fakes.ordered_site import give_order, make_site, starts


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path)


def worker(settings: SiteSettings, job: str = "quick") -> Worker:
    return Worker(settings, f"tests.fakes.jobs:{job}")


def until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to be")


def test_a_redelivered_task_never_runs_twice(settings: SiteSettings) -> None:
    give_order(settings)
    assert work_on(worker(settings), "task-1") == "done"
    assert work_on(worker(settings), "task-1") == "done before"
    candidate = read_candidate(settings.paths, "task-1")
    assert candidate is not None
    assert candidate.kind == "update"
    assert len(starts(settings)) == 1
    assert list((settings.paths.worker / "staging").iterdir()) == []


def test_a_cohort_s_figures_are_handed_over(settings: SiteSettings) -> None:
    order = give_order(settings, "cohort-1", "cohort")
    assert work_on(worker(settings), "cohort-1") == "done"
    figures = read_cohort_figures(settings.paths, order.study_digest)
    assert figures is not None
    assert figures.training_patients == 7


def test_without_an_order_nothing_is_done(settings: SiteSettings) -> None:
    assert work_on(worker(settings), "task-1") == "no order"


def test_while_one_works_another_keeps_off(settings: SiteSettings) -> None:
    give_order(settings)
    first = worker(settings, "slow")
    outcomes: list[str] = []
    thread = threading.Thread(target=lambda: outcomes.append(work_on(first, "task-1")))
    thread.start()
    until(lambda: len(starts(settings)) == 1)
    assert work_on(worker(settings, "slow"), "task-1") == "held by another"
    (settings.paths.worker / "go").touch()
    thread.join(30)
    assert outcomes == ["done"]


@pytest.mark.parametrize("why", ["order taken away", "worker ends"])
def test_a_job_stops_when_it_may_not_go_on(settings: SiteSettings, why: str) -> None:
    give_order(settings)
    one = worker(settings, "slow")
    outcomes: list[str] = []
    thread = threading.Thread(target=lambda: outcomes.append(work_on(one, "task-1")))
    thread.start()
    until(lambda: len(starts(settings)) == 1)
    if why == "worker ends":
        one.stop.set()
    else:
        order_path(settings.paths, "task-1").unlink()
    thread.join(30)
    assert outcomes == ["interrupted"]
    assert read_candidate(settings.paths, "task-1") is None


def test_a_job_that_dies_again_and_again_becomes_a_failure_with_its_reason(settings: SiteSettings) -> None:
    give_order(settings)
    outcomes = [work_on(worker(settings, "crashing"), "task-1") for _ in range(MAX_CRASHES + 1)]
    assert outcomes == ["crashed"] * MAX_CRASHES + ["done"]
    candidate = read_candidate(settings.paths, "task-1")
    assert candidate is not None
    assert (candidate.kind, candidate.reason) == ("failure", Reason.INTERNAL)


def test_the_supervisor_enqueues_what_nobody_works_on_and_not_too_often(settings: SiteSettings) -> None:
    now = [1000.0]
    supervisor = Supervisor(Worker(settings, clock=lambda: now[0]), lambda task_id: True)
    give_order(settings)
    assert supervisor.look() == []
    now[0] += GRACE_SECONDS
    assert supervisor.look() == ["task-1"]
    now[0] += AGAIN_SECONDS - 1
    assert supervisor.look() == []
    now[0] += 1
    assert supervisor.look() == ["task-1"]
    work_on(worker(settings), "task-1")
    now[0] += AGAIN_SECONDS
    assert supervisor.look() == []
