"""The hub's Celery application: one queue, one task, JSON only.

The queue is a hint and nothing else. What is to be done stands in the database; a lost entry is asked for again by the
clock (`hub/rounds/deadlines.py`), one that comes twice finds its round closed. So a killed worker is never waited for.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from hub.errors import SettingsError
from hub.services import Enqueue, open_services
from hub.settings import Settings
from hub.tasks.aggregate_round import add_aggregate_round, close_round
from hub.tasks.deafness import end_when_deaf

QUEUE = "aggregate"
# Longer than any close; the clock does not wait for it.
VISIBILITY_TIMEOUT_SECONDS = 6 * 3600
CONNECT_TIMEOUT_SECONDS = 5
_log = structlog.get_logger()


def make_app(redis_url: str) -> Celery:
    """Return the application on a Redis, without tasks."""
    app = Celery("wardround-hub", broker=redis_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=CONNECT_TIMEOUT_SECONDS,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
            "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        },
        task_default_queue=QUEUE,
    )
    return app


def make_enqueue(settings: Settings) -> Enqueue:
    """Return how the API hands work to a worker: through Redis, or to a thread of this process if there is none."""
    return _enqueue_in_process(settings) if settings.redis_url is None else _enqueue_in_redis(settings.redis_url)


def run_worker(settings: Settings) -> None:
    """Work until stopped: one close at a time, in this process.

    Raises: SettingsError if no Redis is named.
    """
    if settings.redis_url is None:
        raise SettingsError("The worker takes its work from Redis, and none is named.", "Name one: --redis URL.")
    app = make_app(settings.redis_url)
    services = open_services(settings, make_enqueue(settings))
    add_aggregate_round(app, services)
    _log.info("hub_worker_started", queue=QUEUE)
    # A pool of its own would fork open connections; more work at once is more workers.
    worker = app.Worker(
        pool="solo", loglevel="WARNING", queues=[QUEUE], without_gossip=True, without_mingle=True, quiet=True
    )
    end_when_deaf(worker)
    worker.start()
    raise SystemExit(worker.exitcode or 0)


def _enqueue_in_redis(redis_url: str) -> Enqueue:
    app = make_app(redis_url)

    def enqueue(name: str, arguments: dict[str, Any]) -> None:
        try:
            app.send_task(name, kwargs=arguments, queue=QUEUE, retry=False)
        except (OperationalError, OSError):
            _log.warning("redis_not_reached", doing="enqueue", remedy="the clock asks again")

    return enqueue


def _enqueue_in_process(settings: Settings) -> Enqueue:
    executor = ThreadPoolExecutor(1, thread_name_prefix="wardround-close")

    def close(arguments: dict[str, Any]) -> None:
        try:
            services = open_services(settings, enqueue)
            close_round(services, **arguments)
            services.database.close()
        except Exception:
            _log.exception("close_failed", remedy="the clock asks again")

    def enqueue(name: str, arguments: dict[str, Any]) -> None:
        executor.submit(close, arguments)

    return enqueue
