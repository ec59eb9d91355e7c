import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from compose.errors import ServiceError
from compose.interruption import Interrupted, Interruption, caught_signals
from compose.processes import Backoff, Service, Supervisor
from compose.watchdog import marked_processes
from tests.fakes.waiting import until

QUICK = Backoff(first_seconds=0.05, most_seconds=0.2, healthy_seconds=30.0, give_up_after=4)
SLEEPER = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)
# A child in a session of its own: neither the group nor the parent-death signal reaches it.
PARENT = (
    "import subprocess, sys, time;"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
    "print('ready', flush=True); time.sleep(600)"
)
OWNER = """
import sys, time
from pathlib import Path
from compose.interruption import caught_signals, Interrupted
from compose.processes import Service, Supervisor
with caught_signals() as interruption:
    supervisor = Supervisor(interruption)
    for number, code in enumerate(sys.argv[2:]):
        supervisor.start(Service(f"s{number}", (sys.executable, "-c", code), Path(sys.argv[1]) / f"s{number}.log"))
    (Path(sys.argv[1]) / "mark").write_text(supervisor.mark)
    try:
        supervisor.pause(600)
    except Interrupted:
        supervisor.stop(grace_seconds=1)
"""


def python(code: str, role: str, folder: Path) -> Service:
    return Service(role, (sys.executable, "-c", code), folder / f"{role}.log")


@pytest.fixture
def interruption() -> Interruption:
    return Interruption()


@pytest.fixture
def supervisor(interruption: Interruption) -> Iterator[Supervisor]:
    made = Supervisor(interruption, QUICK)
    yield made
    made.stop(grace_seconds=0.5)


def test_a_service_that_dies_is_started_again(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(python(SLEEPER, "sleeper", tmp_path))
    first = supervisor.processes()[0]
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: supervisor.pid("sleeper") is None)
    supervisor.pause(0.3)
    second = supervisor.processes()[0]
    assert second.pid != first.pid
    assert second.restarts == 1


def test_a_service_that_never_stays_up_is_given_up_with_its_last_words(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(python("raise SystemExit('no disk')", "broken", tmp_path))
    with pytest.raises(ServiceError, match="no disk"):
        supervisor.pause(10)


def test_the_pause_before_a_restart_doubles_up_to_its_limit() -> None:
    backoff = Backoff(first_seconds=0.5, most_seconds=3)
    assert [backoff.pause_seconds(n) for n in (1, 2, 3, 4, 5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_stop_kills_what_does_not_listen_and_children_in_sessions_of_their_own(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.start(python(STUBBORN, "stubborn", tmp_path))
    supervisor.start(python(PARENT, "parent", tmp_path))
    until(lambda: all("ready" in (tmp_path / f"{role}.log").read_text() for role in ("stubborn", "parent")))
    assert len(marked_processes(supervisor.mark)) == 3
    supervisor.stop(grace_seconds=0.3)
    assert marked_processes(supervisor.mark) == []


def test_children_of_a_died_service_do_not_outlive_it(supervisor: Supervisor, tmp_path: Path) -> None:
    code = PARENT.replace(", start_new_session=True", "")
    supervisor.start(python(code, "parent", tmp_path))
    until(lambda: "ready" in (tmp_path / "parent.log").read_text())
    process = psutil.Process(supervisor.processes()[0].pid)
    (child,) = process.children()
    process.kill()
    until(lambda: supervisor.pid("parent") is None)
    supervisor.tick()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_what_ends_last_ends_after_the_others(supervisor: Supervisor, tmp_path: Path) -> None:
    note = "import signal, sys, time\ndef end(*_):\n    print(time.monotonic(), flush=True); sys.exit()\n"
    code = note + "signal.signal(signal.SIGTERM, end); print('ready', flush=True); time.sleep(600)"
    supervisor.start(Service("redis", (sys.executable, "-c", code), tmp_path / "redis.log", ends_last=True))
    supervisor.start(python(code, "agent", tmp_path))
    until(lambda: all("ready" in (tmp_path / f"{role}.log").read_text() for role in ("redis", "agent")))
    supervisor.stop(grace_seconds=5)
    ended = {role: float((tmp_path / f"{role}.log").read_text().split()[-1]) for role in ("redis", "agent")}
    assert ended["agent"] < ended["redis"]


def test_commands_run_side_by_side_and_return_what_they_printed(supervisor: Supervisor, tmp_path: Path) -> None:
    assert supervisor.run(python("print(1)", "one", tmp_path), python("print(2)", "two", tmp_path)) == ["1\n", "2\n"]


def test_a_command_that_fails_is_named_with_its_last_words(supervisor: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"(?s)'enrol st-anna' failed.*wrong code"):
        supervisor.run(python("raise SystemExit('wrong code')", "enrol st-anna", tmp_path))


def test_a_command_that_takes_too_long_is_ended(supervisor: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="'slow' failed"):
        supervisor.run(python(SLEEPER, "slow", tmp_path), timeout_seconds=0.3)
    assert marked_processes(supervisor.mark) == []


def test_a_wish_to_end_interrupts_a_pause_and_leaves_no_command_behind(
    supervisor: Supervisor, interruption: Interruption, tmp_path: Path
) -> None:
    interruption.ask(signal.SIGINT)
    with pytest.raises(Interrupted):
        supervisor.pause(60)
    with pytest.raises(Interrupted):
        supervisor.run(python(SLEEPER, "slow", tmp_path))
    assert marked_processes(supervisor.mark) == []


def test_signals_become_a_flag_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with caught_signals() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: interruption.times == 1)
        with pytest.raises(Interrupted, match="SIGTERM"):
            interruption.check()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_whatever_ends_the_owner_no_process_is_left(number: signal.Signals, tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path), STUBBORN, PARENT], start_new_session=True)
    until(
        lambda: all(
            (tmp_path / f"s{n}.log").exists() and "ready" in (tmp_path / f"s{n}.log").read_text() for n in (0, 1)
        )
    )
    until((tmp_path / "mark").exists)
    mark = (tmp_path / "mark").read_text()
    assert len(marked_processes(mark)) == 3
    owner.send_signal(number)
    owner.wait(timeout=15)
    until(lambda: marked_processes(mark) == [])


def test_a_killed_watchdog_comes_back(supervisor: Supervisor) -> None:
    def marked() -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if supervisor.mark in child.cmdline()]

    until(lambda: len(marked()) == 1)  # a new process shows its command only once it has been replaced
    (watchdog,) = marked()
    watchdog.kill()
    watchdog.wait(timeout=5)
    supervisor.tick()
    until(lambda: len(marked()) == 1)
