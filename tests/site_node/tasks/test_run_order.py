"""One order in a child process: done once, whatever is delivered again, and stopped when it may not go on."""

import contextlib
import importlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.digest import digest_of_bytes, hex_of
from protocol.messages import Reason
from site_node.candidate import read_candidate, read_cohort_figures
from site_node.checkpoint_folders import checkpoint_folder
from site_node.machine_figures import MachineFigures, read_machine_figures
from site_node.memory_shortages import shortages_of
from site_node.orders import order_path
from site_node.settings import SiteSettings
from site_node.tasks import run_order
from site_node.tasks.child import MEASURING_JOB
from site_node.tasks.lease import EXPIRY_SECONDS, REST_SECONDS
from site_node.tasks.run_order import MAX_CRASHES, Worker, work_on
from site_node.tasks.supervisor import AGAIN_SECONDS, GRACE_SECONDS, Supervisor
from site_node.training_hours import TrainHours
from tests.fakes.ordered_site import give_order, make_site, starts
from tests.fakes.waiting import until


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path)


def worker(settings: SiteSettings, job: str = "quick", clock: Callable[[], float] = time.time) -> Worker:
    return Worker(settings, f"tests.fakes.jobs:{job}", clock)


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
    assert work_on(worker(settings, "slow"), "task-1") == "held by another, or resting"
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


def tries(settings: SiteSettings, job: str) -> list[str]:
    """Work on an order until there is nothing left to do, and rest as long as it takes in between."""
    now, outcomes = [1000.0], list[str]()
    for rest in (*REST_SECONDS, 0.0):
        outcomes.append(work_on(worker(settings, job, lambda: now[0]), "task-1"))
        now[0] += rest
    return outcomes


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ("crashing", Reason.INTERNAL),
        ("killed", Reason.OUT_OF_MEMORY),
        ("without_memory", Reason.OUT_OF_MEMORY),
        ("without_disk", Reason.DISK_FULL),
        ("without_disk_for_its_reason", Reason.DISK_FULL),
    ],
)
def test_what_may_pass_is_tried_again_after_a_rest_and_then_becomes_a_failure_with_its_reason(
    settings: SiteSettings, job: str, reason: Reason
) -> None:
    give_order(settings)
    assert tries(settings, job) == ["crashed"] * MAX_CRASHES + ["done"]
    candidate = read_candidate(settings.paths, "task-1")
    assert candidate is not None
    assert (candidate.kind, candidate.reason) == ("failure", reason)
    assert len(starts(settings)) == MAX_CRASHES + 1


@pytest.mark.parametrize(
    ("job", "shortages"), [("killed", [1, 2]), ("without_memory", [1, 2]), ("crashing", [0, 0])], ids=str
)
def test_what_ended_for_memory_is_noted_for_the_next_attempt_until_the_task_has_ended(
    settings: SiteSettings, job: str, shortages: list[int]
) -> None:
    folder = checkpoint_folder(settings.paths, give_order(settings))
    now, noted = [1000.0], list[int]()
    for _ in range(MAX_CRASHES):
        assert work_on(worker(settings, job, lambda: now[0]), "task-1") == "crashed"
        noted.append(shortages_of(folder))
        now[0] += REST_SECONDS[1]
    assert noted == shortages
    assert work_on(worker(settings, "quick", lambda: now[0]), "task-1") == "done"
    assert not folder.exists()


def test_what_another_attempt_would_meet_again_is_answered_at_once(settings: SiteSettings) -> None:
    give_order(settings)
    assert work_on(worker(settings, "diverging"), "task-1") == "done"
    candidate = read_candidate(settings.paths, "task-1")
    assert candidate is not None
    assert candidate.reason is Reason.NOT_FINITE


def test_a_second_attempt_may_succeed(settings: SiteSettings) -> None:
    give_order(settings)
    now = [1000.0]
    assert work_on(worker(settings, "without_memory", lambda: now[0]), "task-1") == "crashed"
    now[0] += REST_SECONDS[0]
    assert work_on(worker(settings, "quick", lambda: now[0]), "task-1") == "done"
    candidate = read_candidate(settings.paths, "task-1")
    assert candidate is not None
    assert candidate.kind == "update"


def test_nobody_works_on_a_job_that_rests(settings: SiteSettings) -> None:
    give_order(settings)
    now = [1000.0]
    work_on(worker(settings, "without_memory", lambda: now[0]), "task-1")
    supervisor = Supervisor(worker(settings, "quick", lambda: now[0]), lambda task_id: True)
    now[0] += REST_SECONDS[0] - GRACE_SECONDS - 1
    assert work_on(worker(settings, "quick", lambda: now[0]), "task-1") == "held by another, or resting"
    assert supervisor.look() == []
    now[0] += GRACE_SECONDS
    assert supervisor.look() == []
    now[0] += 1
    supervisor.look()
    now[0] += GRACE_SECONDS
    assert supervisor.look() == ["task-1"]


def test_a_count_of_the_cohort_is_tried_again_too(settings: SiteSettings) -> None:
    order = give_order(settings, "task-1", "cohort")
    assert tries(settings, "without_memory") == ["crashed"] * MAX_CRASHES + ["done"]
    figures = read_cohort_figures(settings.paths, order.study_digest)
    assert figures is not None
    assert figures.problem is Reason.OUT_OF_MEMORY


@pytest.fixture
def on_a_small_disk(tmp_path: Path) -> Iterator[SiteSettings]:
    """A site on a disk of one MiB; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a disk here")
    try:
        yield make_site(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_really_full_is_a_failure_with_its_reason(on_a_small_disk: SiteSettings) -> None:
    give_order(on_a_small_disk)
    assert tries(on_a_small_disk, "writing_two_megabytes") == ["crashed"] * MAX_CRASHES + ["done"]
    candidate = read_candidate(on_a_small_disk.paths, "task-1")
    assert candidate is not None
    assert (candidate.kind, candidate.reason) == ("failure", Reason.DISK_FULL)


def test_where_not_even_a_reason_can_be_written_the_worker_goes_on_and_tries_again(
    on_a_small_disk: SiteSettings,
) -> None:
    settings, now = on_a_small_disk, [1000.0]
    give_order(settings)
    filler = settings.paths.worker / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert work_on(worker(settings, "quick", lambda: now[0]), "task-1") == "not written"
    filler.unlink()
    now[0] += EXPIRY_SECONDS
    assert work_on(worker(settings, "quick", lambda: now[0]), "task-1") == "done"


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


def test_an_order_waits_for_the_versions_that_the_agent_still_fetches(settings: SiteSettings) -> None:
    now = [1000.0]
    supervisor = Supervisor(Worker(settings, clock=lambda: now[0]), lambda task_id: True)
    weights = b"weights"
    give_order(settings, base_blob=digest_of_bytes(weights))
    supervisor.look()
    now[0] += 100 * AGAIN_SECONDS  # a slow network: the download takes long
    assert supervisor.look() == []
    assert work_on(worker(settings), "task-1") == "waits for its version"
    assert starts(settings) == []
    (settings.paths.blobs / hex_of(digest_of_bytes(weights))).write_bytes(weights)
    supervisor.look()
    now[0] += GRACE_SECONDS
    assert supervisor.look() == ["task-1"]
    assert work_on(worker(settings), "task-1") == "done"


def test_a_clock_that_is_set_back_does_not_keep_the_supervisor_from_looking(settings: SiteSettings) -> None:
    now = [10_000.0]
    supervisor = Supervisor(Worker(settings, clock=lambda: now[0]), lambda task_id: True)
    give_order(settings)
    supervisor.look()
    now[0] -= 7200.0
    supervisor.look()
    now[0] += AGAIN_SECONDS
    assert supervisor.look() == ["task-1"]


def test_a_training_that_queued_too_long_waits_for_its_hours_and_is_not_announced_again(settings: SiteSettings) -> None:
    hours = TrainHours(hours="20:00-06:00", time_zone="UTC")
    now = [12 * 3600.0]
    night = worker(replace(settings, train_hours=hours), clock=lambda: now[0])
    announced: list[str] = []

    def announce(task_id: str) -> bool:
        announced.append(task_id)
        return True

    supervisor = Supervisor(night, announce)
    give_order(settings)
    assert work_on(night, "task-1") == "waits for its hours"
    for _ in range(4):
        supervisor.look()
        now[0] += AGAIN_SECONDS
    assert (announced, starts(settings)) == ([], [])
    now[0] = 21 * 3600.0
    supervisor.look()
    now[0] += GRACE_SECONDS
    assert supervisor.look() == ["task-1"]
    assert work_on(night, "task-1") == "done"


def test_counting_and_judging_do_not_wait_for_the_hours(settings: SiteSettings) -> None:
    hours = TrainHours(hours="20:00-06:00", time_zone="UTC")
    noon = worker(replace(settings, train_hours=hours), clock=lambda: 12 * 3600.0)
    give_order(settings, "cohort-1", "cohort")
    assert work_on(noon, "cohort-1") == "done"


def measured(settings: SiteSettings, monkeypatch: pytest.MonkeyPatch, job: str) -> list[str]:
    """Work on an order for readiness until it is over, with a job in place of the measuring; return how it went."""
    monkeypatch.setattr(run_order, "MEASURING_JOB", f"tests.fakes.jobs:{job}")
    now = [time.time()]
    outcomes = []
    for _ in range(MAX_CRASHES + 2):
        outcomes.append(work_on(worker(settings, clock=lambda: now[0]), "readiness-1"))
        now[0] += max(REST_SECONDS) + EXPIRY_SECONDS
    return outcomes


def test_a_machine_s_figures_are_handed_over_once(settings: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    order = give_order(settings, "readiness-1", "readiness", recount=1)
    assert measured(settings, monkeypatch, "measuring") == ["done", *["done before"] * (MAX_CRASHES + 1)]
    figures = read_machine_figures(settings.paths, order.study_digest)
    assert figures is not None
    assert (figures.device, figures.number) == ("cpu", 1)


def test_a_measurement_that_crashes_ends_as_nothing_seen(
    settings: SiteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = give_order(settings, "readiness-1", "readiness", recount=2)
    outcomes = measured(settings, monkeypatch, "killed")
    assert outcomes == ["crashed"] * MAX_CRASHES + ["done", "done before"]
    figures = read_machine_figures(settings.paths, order.study_digest)
    assert figures == MachineFigures(study_digest=order.study_digest, number=2)


def test_the_measuring_job_is_there_under_the_name_that_the_worker_calls(settings: SiteSettings) -> None:
    module, _, function = MEASURING_JOB.partition(":")
    tell = getattr(importlib.import_module(module), function)
    order = give_order(settings, "readiness-1", "readiness", recount=1)  # of a study that does not parse
    tell(settings, "readiness-1")
    assert read_machine_figures(settings.paths, order.study_digest) == MachineFigures(
        study_digest=order.study_digest, number=1
    )
