import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from compose.interruption import Interruption
from compose.nursery import may_be_born
from compose.processes import Service, Supervisor
from compose.watchdog import MARK_VARIABLE, marked_processes
from tests.fakes.waiting import until

NEWBORN = """
import os, sys, time
assert __name__ == "__main__"
print(sys.argv[1:], os.environ.get("TOLD"), flush=True)
if sys.argv[1] == "fail":
    sys.exit("a last word")
if sys.argv[1] == "stay":
    time.sleep(600)
"""
OWNER = """
import sys
from pathlib import Path
from compose.interruption import Interruption
from compose.processes import Service, Supervisor
folder = Path(sys.argv[1])
supervisor = Supervisor(Interruption())
with supervisor.nursery(folder / "nursery.log"):
    command = (sys.executable, "-P", "-m", "newborn", "stay")
    supervisor.start(Service("born", command, folder / "born.log", born=True))
    (folder / "mark").write_text(supervisor.mark)
    supervisor.pause(600)
"""


def newborn(folder: Path, word: str, *, module: str = "newborn") -> Service:
    command = (sys.executable, "-P", "-m", module, word)
    return Service(word, command, folder / f"{word}.log", {"TOLD": "all"}, born=True)


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    (tmp_path / "newborn.py").write_text(NEWBORN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    made = Supervisor(Interruption())
    yield made
    made.stop(grace_seconds=1)


def test_who_is_born_is_our_child_with_a_session_and_an_environment_of_its_own(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    with supervisor.nursery(tmp_path / "nursery.log"):
        supervisor.start(newborn(tmp_path, "stay"))
        born = psutil.Process(supervisor.pid("stay"))
        until(lambda: (tmp_path / "stay.log").read_text() == "['stay'] all\n")
    # The nursery has ended; who was born lives on, and is known by the mark to whoever ends what is left.
    assert born.ppid() == os.getpid()
    assert os.getsid(born.pid) == born.pid
    assert born.environ()[MARK_VARIABLE] == supervisor.mark
    assert "compose.nursery" in born.cmdline()  # forked, not started
    supervisor.stop(grace_seconds=1)
    assert not born.is_running()


def test_commands_run_to_their_end_side_by_side_and_a_failure_is_told(supervisor: Supervisor, tmp_path: Path) -> None:
    with supervisor.nursery(tmp_path / "nursery.log"):
        assert supervisor.run(newborn(tmp_path, "one"), newborn(tmp_path, "two")) == ["['one'] all\n", "['two'] all\n"]
        with pytest.raises(Exception, match="a last word"):
            supervisor.run(newborn(tmp_path, "fail"))


def test_one_that_dies_comes_back_without_a_nursery(supervisor: Supervisor, tmp_path: Path) -> None:
    with supervisor.nursery(tmp_path / "nursery.log"):
        supervisor.start(newborn(tmp_path, "stay"))
    first = supervisor.pid("stay")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: supervisor.pid("stay") is None)

    def is_back() -> bool:
        supervisor.tick()
        return supervisor.pid("stay") is not None

    until(is_back)
    assert supervisor.pid("stay") != first


def test_where_the_nursery_cannot_load_its_modules_processes_start_the_usual_way(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    (tmp_path / "celery.py").write_text("raise ImportError")
    with supervisor.nursery(tmp_path / "nursery.log"):
        supervisor.start(newborn(tmp_path, "stay"))
        until(lambda: (tmp_path / "stay.log").read_text() == "['stay'] all\n")
        assert "newborn" in psutil.Process(supervisor.pid("stay")).cmdline()


def test_a_killed_owner_leaves_nobody(tmp_path: Path, supervisor: Supervisor) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], start_new_session=True)
    until(lambda: (tmp_path / "mark").exists() and (tmp_path / "born.log").read_text() != "")
    mark = (tmp_path / "mark").read_text()
    assert len(marked_processes(mark)) == 2
    owner.kill()
    owner.wait(timeout=15)
    until(lambda: marked_processes(mark) == [])


def test_only_this_interpreter_running_a_module_may_be_born() -> None:
    assert may_be_born((sys.executable, "-P", "-m", "compose.cli", "site", "gate", "A"))
    assert not may_be_born((sys.executable, "-c", "pass"))
    assert not may_be_born(("redis-server", "redis.conf"))
