import signal
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state
from kombu.transport.virtual.base import QoS

from site_node.tasks.deafness import LOOKS, end_when_deaf, is_deaf


def worker_with(unacknowledged: int) -> Any:
    qos = QoS(SimpleNamespace(), prefetch_count=1)
    qos.restore_at_shutdown = False
    for number in range(unacknowledged):
        qos.append(SimpleNamespace(delivery_tag=number), number)
    return SimpleNamespace(consumer=SimpleNamespace(task_consumer=SimpleNamespace(channel=SimpleNamespace(qos=qos))))


class Request:
    """What Celery counts as under way."""


@pytest.fixture
def busy() -> Iterator[Any]:
    request = Request()
    state.active_requests.add(request)
    yield request
    state.active_requests.discard(request)


def test_a_worker_without_work_that_may_take_no_message_is_deaf() -> None:
    assert is_deaf(worker_with(1))


def test_one_that_may_take_a_message_is_not() -> None:
    assert not is_deaf(worker_with(0))


def test_one_that_works_is_not(busy: Any) -> None:
    assert not is_deaf(worker_with(1))


def test_one_that_is_connecting_is_not() -> None:
    assert not is_deaf(SimpleNamespace(consumer=None))


def test_a_deaf_worker_ends_as_if_it_had_been_asked_to() -> None:
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        end_when_deaf(worker_with(1), look_seconds=0.01).join(10 * LOOKS)
        assert asked.wait(10)
    finally:
        signal.signal(signal.SIGTERM, before)
