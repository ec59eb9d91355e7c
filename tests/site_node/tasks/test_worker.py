"""Real workers on a real Redis: jobs run, a killed worker's job is taken over, and no child outlives its worker."""

import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import redis

from site_node.candidate import read_candidate
from site_node.settings import SiteSettings
from site_node.tasks.app import enqueue, make_app, verified
from tests.fakes.ordered_site import give_order, make_site, starts
from tests.fakes.running_workers import running_redis, running_worker
from tests.fakes.waiting import until

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
JOBS = "tests.fakes.jobs:"


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[SiteSettings]:
    with running_redis(tmp_path) as address:
        yield make_site(tmp_path, address)


def running(settings: SiteSettings, job: str, **variables: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Run a worker whose jobs are one of `tests/fakes/jobs.py`."""
    return running_worker(settings, JOBS + job, **variables)


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
    options = ["--port", str(port), "--bind", "127.0.0.1", "--aclfile", str(users)]
    with running_redis(tmp_path, *options), redis.Redis.from_url(url_of(port)) as client:
        settings = make_site(tmp_path, url_of(port))
        give_order(settings)
        with running(settings, "quick"):
            assert enqueue(make_app(settings), "task-1")
            until(lambda: read_candidate(settings.paths, "task-1") is not None)
        for forbidden in (["KEYS", "*"], ["CONFIG", "GET", "*"], ["FLUSHALL"], ["ACL", "LIST"], ["GET", "else"]):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*forbidden)
    assert "NOPERM" not in (settings.paths.logs / "worker.log").read_text(encoding="utf-8")


def url_of(port: int) -> str:
    return f"redis://wr-worker:secret@127.0.0.1:{port}/0"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


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


@pytest.mark.parametrize(
    ("address", "used"),
    [
        ("rediss://r:6379/0", "rediss://r:6379/0?ssl_cert_reqs=CERT_REQUIRED"),
        ("rediss://r/0?ssl_ca_certs=/ca.pem", "rediss://r/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=CERT_REQUIRED"),
        ("rediss://r/0?ssl_cert_reqs=CERT_NONE", "rediss://r/0?ssl_cert_reqs=CERT_NONE"),
        ("redis+socket:///run/r.sock", "redis+socket:///run/r.sock"),
    ],
)
def test_over_tls_redis_has_to_prove_itself_unless_somebody_says_otherwise(address: str, used: str) -> None:
    assert verified(address) == used


def test_the_worker_s_connection_over_tls_checks_the_certificate(tmp_path: Path) -> None:
    connection = make_app(make_site(tmp_path, "rediss://r.test:6379/0")).connection_for_write()
    assert connection.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}


def test_without_redis_the_order_waits_and_nobody_fails(tmp_path: Path) -> None:
    settings = make_site(tmp_path)
    give_order(settings)
    assert not enqueue(make_app(settings), "task-1")
