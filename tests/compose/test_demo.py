"""The demo as a person sees it: real processes, a real Redis for each hospital, real DICOM."""

import os
import pty
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fakes.demo_run import SMALL_STUDY, DemoRun, mark_of, nothing_is_left

pytestmark = [pytest.mark.xdist_group("demo"), pytest.mark.timeout(600)]
ROLES = {"hub redis", "hub api", "hub worker", "ui"} | {
    f"{site} {part}" for site in ("st-anna", "harbour", "northfield") for part in ("redis", "gate", "agent", "worker")
}


@pytest.fixture
def runs() -> Iterator[list[DemoRun]]:
    started: list[DemoRun] = []
    yield started
    for run in started:
        run.stop()


def test_a_demo_completes_and_a_second_run_shows_what_is_there(tmp_path: Path, runs: list[DemoRun]) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        run = DemoRun.start(tmp_path, "--exit", study=SMALL_STUDY)
        runs.append(run)
        run.wait_until(lambda: run.pid("ui"))
        mark = run.mark()
        assert run.ended() == 0, run.output
    assert nothing_is_left(mark)
    report = run.report
    assert report["study"]["state"] == "completed"
    assert [entry["number"] for entry in report["rounds"]] == [1, 2]
    assert {process["role"] for process in report["processes"]} == ROLES
    assert report["privacy"]["noise"] == "cryptographic"
    assert 0 < report["privacy"]["epsilon"] <= 8
    assert sum(site["patients"] for site in report["rounds"][-1]["sites"]) == 334
    assert all(site["bytes_up"] > 0 and site["images"] > 0 for entry in report["rounds"] for site in entry["sites"])
    assert stat.S_IMODE((run.folder / "people.json").stat().st_mode) == 0o600
    assert "round 2: complete" in run.output

    again = DemoRun.start(tmp_path, "--exit")
    runs.append(again)
    assert again.ended() == 0, again.output
    assert "holds a study already: completed" in " ".join(again.output.split())
    assert again.report["versions"] == report["versions"]


def test_a_demo_that_stays_up_brings_back_what_is_killed_and_lists_it(tmp_path: Path, runs: list[DemoRun]) -> None:
    run = DemoRun.start(tmp_path, study=SMALL_STUDY)
    runs.append(run)
    run.wait_until(lambda: "Everything stays up" in run.output)
    first = run.pid("hub worker")
    run.kill("hub worker")
    run.wait_until(lambda: run.pid("hub worker") not in (first, None))
    later = run.pid("hub worker")
    assert later is not None
    assert psutil.pid_exists(later)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_an_ended_demo_leaves_no_process_and_goes_on_when_run_again(
    number: signal.Signals, tmp_path: Path, runs: list[DemoRun]
) -> None:
    run = DemoRun.start(tmp_path, "--exit", study=SMALL_STUDY)
    runs.append(run)
    run.wait_until(lambda: run.rows("SELECT 1 FROM rounds WHERE number = 1"))
    mark = run.mark()
    run.process.send_signal(number)
    assert run.ended() != 0
    assert nothing_is_left(mark)
    again = DemoRun.start(tmp_path, "--exit")
    runs.append(again)
    assert again.ended() == 0, again.output
    assert "It goes on where it was" in " ".join(again.output.split())
    assert [entry["state"] for entry in again.report["rounds"]] == ["complete", "complete"]


@pytest.mark.parametrize("seconds", [0.4, 1.5, 4.0, 9.0])
def test_ctrl_c_at_any_moment_leaves_no_process(seconds: float, tmp_path: Path, runs: list[DemoRun]) -> None:
    run = DemoRun.start(tmp_path, study=SMALL_STUDY)
    runs.append(run)
    time.sleep(seconds)
    mark = run.mark()
    run.process.send_signal(signal.SIGINT)
    assert run.ended(120) != 0
    assert not mark or nothing_is_left(mark, 5)


def test_closing_the_terminal_leaves_no_process(tmp_path: Path) -> None:
    process, terminal = pty.fork()
    if process == 0:
        command = [sys.executable, "-m", "compose.cli", "demo", "--dir", str(tmp_path / "demo")]
        os.execv(sys.executable, command)  # noqa: S606 -- the child of a fork becomes the demo
    run = psutil.Process(process)
    seen = b""
    while b"Proposing" not in seen:
        seen += os.read(terminal, 1024)
    mark = mark_of(run)
    assert mark
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP
    assert nothing_is_left(mark, 5)


def test_a_study_that_every_policy_refuses_ends_with_its_reason(tmp_path: Path, runs: list[DemoRun]) -> None:
    study = {**SMALL_STUDY, "privacy": {"epsilon": None}}
    run = DemoRun.start(tmp_path, "--exit", study=study)
    runs.append(run)
    assert run.ended() == 1
    assert "refused: policy" in run.output


def test_a_study_that_does_not_parse_is_one_clear_message(tmp_path: Path, runs: list[DemoRun]) -> None:
    run = DemoRun.start(
        tmp_path, "--exit", study={**SMALL_STUDY, "network": {"name": "densenet", "normalisation": "batch"}}
    )
    runs.append(run)
    assert run.ended(60) == 1
    assert "DP-SGD's clipping bounds nothing" in run.output
    assert "Traceback" not in run.output
