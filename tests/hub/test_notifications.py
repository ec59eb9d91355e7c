"""Waking long polls, one suite for both carriers."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.interruption import Interruption
from compose.processes import Supervisor
from compose.redis_server import prepare_redis
from hub.notifications import LocalWaker, RedisWaker, Waker, waker_for


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    supervisor = Supervisor(Interruption())
    server = prepare_redis(tmp_path / "redis", "redis", tmp_path / "redis.log")
    supervisor.start(server.service)
    for _ in range(100):
        if server.answers():
            break
        supervisor.pause(0.1)
    yield server.url
    supervisor.stop()


@pytest.fixture(params=["local", "redis"])
def wakers(request: pytest.FixtureRequest) -> Iterator[tuple[Waker, Waker]]:
    """Two processes' wakers: one listens, the other wakes."""
    if request.param == "local":
        waker = LocalWaker()
        yield waker, waker
        return
    url = request.getfixturevalue("redis_url")
    pair = RedisWaker(url), RedisWaker(url)
    yield pair
    for one in pair:
        one.close()


async def _woken(listener: Waker, waker: Waker, woken_site: str, seconds: float) -> bool:
    with listener.listening("anna") as signal:
        # A new Redis subscription takes a moment, and wakes everybody when it stands.
        await signal.wait(3.0 if isinstance(listener, RedisWaker) else 0.1)
        waking = threading.Thread(target=waker.wake, args=(woken_site,))
        waking.start()
        woken = await signal.wait(seconds)
        await asyncio.to_thread(waking.join)
        return woken


def test_a_reader_is_woken_from_another_thread(wakers: tuple[Waker, Waker]) -> None:
    started = time.monotonic()
    assert asyncio.run(_woken(*wakers, "anna", 10.0))
    assert time.monotonic() - started < 5


def test_a_reader_is_not_woken_for_another_site(wakers: tuple[Waker, Waker]) -> None:
    assert not asyncio.run(_woken(*wakers, "bela", 0.5))


def test_what_comes_while_nobody_waits_is_kept_for_a_listener() -> None:
    async def scene() -> bool:
        waker = LocalWaker()
        with waker.listening("anna") as signal:
            waker.wake("anna")
            await asyncio.sleep(0)
            return await signal.wait(0.5)

    assert asyncio.run(scene())


def test_waiting_ends_with_its_time(wakers: tuple[Waker, Waker]) -> None:
    started = time.monotonic()
    asyncio.run(wakers[0].wait("anna", 0.1))
    assert time.monotonic() - started < 3


def test_a_dead_redis_stops_nobody() -> None:
    waker = RedisWaker("redis://127.0.0.1:1/0")
    waker.wake("anna")
    assert asyncio.run(_woken(waker, waker, "anna", 2.0))  # within the process it works all the same
    waker.close()


def test_a_hub_without_redis_has_one_waker_in_the_process() -> None:
    assert waker_for(None) is waker_for(None)


def test_readers_look_again_when_redis_is_there_again(redis_url: str) -> None:
    async def scene() -> bool:
        waker = RedisWaker(redis_url)
        with waker.listening("anna") as signal:
            return await signal.wait(10.0)  # nobody wakes anna: it is the subscription that does

    assert asyncio.run(scene())
