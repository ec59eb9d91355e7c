"""The hub's Celery worker with a real Redis: a close that is enqueued is done, also after a worker was killed."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from compose.interruption import Interruption
from compose.processes import Supervisor
from compose.redis_server import RedisServer, prepare_redis
from hub.rounds.transitions import RoundState
from hub.settings import Settings
from hub.tasks.app import make_enqueue
from protocol.messages import TaskKind
from tests.fakes.waiting import until
from tests.hub.rounds.bench import Bench, filled, study_of

WORKER = (
    "import sys; from pathlib import Path; from hub.settings import Settings; from hub.tasks.app import run_worker; "
    "run_worker(Settings(dir=Path(sys.argv[1]), redis_url=sys.argv[2]))"
)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor(Interruption())
    yield made
    made.stop()


@pytest.fixture
def redis_server(supervisor: Supervisor, tmp_path: Path) -> RedisServer:
    server = prepare_redis(tmp_path / "redis", "redis", tmp_path / "redis.log")
    supervisor.start(server.service)
    until(server.answers)
    return server


def ready_to_close(bench: Bench) -> None:
    bench.begin(study_of())
    for task in bench.tasks(TaskKind.TRAIN):
        bench.update(task, filled(2.0))
    assert bench.round()["state"] == RoundState.AGGREGATING


def test_a_killed_workers_close_is_done_by_the_next(
    bench: Bench, supervisor: Supervisor, redis_server: RedisServer, tmp_path: Path
) -> None:
    ready_to_close(bench)
    folder = bench.services.settings.dir
    enqueue = make_enqueue(Settings(dir=folder, redis_url=redis_server.url))
    command = [sys.executable, "-c", WORKER, str(folder), redis_server.url]
    with (tmp_path / "worker.log").open("wb") as log:
        first = subprocess.Popen(command, stdout=log, stderr=log)
        first.kill()
        first.wait()
        second = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(3):  # asked for more than once: it is done once
            enqueue(*bench.queue.items[-1])
        until(lambda: bench.round()["state"] == RoundState.EVALUATING)
    finally:
        second.terminate()
        second.wait()
    np.testing.assert_array_equal(bench.weights(1)["bias"], np.full(2, 2.0, np.float32))
    assert [v["number"] for v in bench.rounds() if v["version"] is not None] == [0, 1]


def test_a_hub_without_redis_closes_in_its_own_process(bench: Bench) -> None:
    ready_to_close(bench)
    make_enqueue(bench.services.settings)(*bench.queue.items[-1])
    until(lambda: bench.round()["state"] == RoundState.EVALUATING)


def test_enqueueing_into_a_dead_redis_does_not_fail_the_request(tmp_path: Path) -> None:
    started = time.monotonic()
    make_enqueue(Settings(dir=tmp_path, redis_url="redis://127.0.0.1:1/0"))("aggregate", {"study": "s", "round": 1})
    assert time.monotonic() - started < 20
