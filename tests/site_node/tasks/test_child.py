"""A job's process where its user or its libraries are not as they should be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.messages import Reason
from site_node.candidate import read_candidate
from site_node.tasks.run_order import MAX_CRASHES
from tests.fakes.ordered_site import give_order, make_site

ROOT = Path(__file__).parents[3]
# A fork server is made once for a process and keeps what it has imported: each case begins in a process of its own.
PROGRAM = """
import json, sys
from pathlib import Path
from site_node.settings import load_settings
from site_node.tasks.run_order import Worker, work_on
outcomes = []
for attempt in range(int(sys.argv[3])):
    worker = Worker(load_settings(Path(sys.argv[1])), sys.argv[2], clock=lambda: 1000.0 * attempt)
    outcomes.append(work_on(worker, "task-1"))
print(json.dumps(outcomes))
"""


def outcomes(site: Path, job: str, times: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(site), job, str(times)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    result: list[str] = json.loads(lines[-1])
    return result


def test_a_job_that_cannot_even_start_becomes_a_failure_and_is_not_tried_for_ever(tmp_path: Path) -> None:
    settings = make_site(tmp_path)
    order = give_order(settings)
    found = outcomes(settings.paths.root, "tests.fakes.broken_job:run", MAX_CRASHES + 1)
    assert found == ["crashed"] * MAX_CRASHES + ["done"]
    candidate = read_candidate(settings.paths, order.task_id)
    assert candidate is not None
    assert candidate.reason is Reason.INTERNAL


def test_a_child_finds_the_rules_of_a_study_loaded(tmp_path: Path) -> None:
    settings = make_site(tmp_path)
    give_order(settings)
    assert outcomes(settings.paths.root, "tests.fakes.jobs:quick_where_the_rules_are_loaded", 1) == ["done"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user that has no account")
def test_a_user_without_an_account_is_given_a_name_for_the_libraries_that_ask() -> None:
    program = """
import getpass, os, pwd, sys
from site_node.tasks.child import _name_this_user
os.setgroups([]); os.setgid(64012); os.setuid(64012)
try:
    sys.exit(f"there is an account: {getpass.getuser()}")
except KeyError:
    _name_this_user()
print(getpass.getuser())
"""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "uid-64012"
