"""The worker's process: Celery consuming the site's queue, one job at a time, each in a child process.

Celery's own pool is a single thread, because the work is done elsewhere: the main thread keeps answering signals, and
asked to end it stops the child at once. What was interrupted is found again by the supervisor of the next worker.
"""

import functools
from contextlib import suppress
from typing import Any

import structlog
from celery import signals
from kombu.exceptions import OperationalError

from site_node.errors import EnrolmentError, RedisAwayError
from site_node.settings import SiteSettings
from site_node.tasks.app import TASK_NAME, enqueue, make_app
from site_node.tasks.child import TRAINING_JOB, start_server
from site_node.tasks.deafness import end_when_deaf
from site_node.tasks.run_order import Worker, work_on
from site_node.tasks.supervisor import Supervisor

_log = structlog.get_logger()


def check_ready(settings: SiteSettings) -> None:
    """Tell now what would keep a worker waiting for ever.

    Raises: EnrolmentError if the site was never enrolled; RedisAwayError if its Redis does not answer.
    """
    with suppress(PermissionError):  # the gate's folder is closed to a worker with a user of its own
        if not settings.paths.hub_key.exists():
            raise EnrolmentError("This site is not enrolled.", "Run `wardround site enroll DIR --code CODE`.")
    with make_app(settings).connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0.0)
        except OperationalError as error:
            raise RedisAwayError(
                f"The site's Redis at {connection.as_uri()} does not answer: {error}.",
                "Start it, or correct `redis` in site.yaml; then start the worker again.",
            ) from None


def run_worker(settings: SiteSettings, job: str = TRAINING_JOB) -> int:
    """Work until a signal ends the process; return its exit status."""
    worker = Worker(settings, job)
    start_server(job)
    app = make_app(settings)

    @app.task(name=TASK_NAME)  # type: ignore[untyped-decorator,unused-ignore]
    def run_order(task_id: str) -> str:
        return "worker ends" if worker.stop.is_set() else work_on(worker, task_id)

    def end(**_: Any) -> None:
        worker.stop.set()

    signals.worker_shutting_down.connect(end, weak=False)
    Supervisor(worker, functools.partial(enqueue, app)).start()
    _log.info("worker_started", site=settings.name)
    # Workers of a site learn of each other by their leases; Celery's own talk would need more rights at Redis.
    alone = {"without_gossip": True, "without_mingle": True}
    consumer = app.Worker(pool="threads", concurrency=1, loglevel="WARNING", quiet=True, **alone)
    end_when_deaf(consumer)
    consumer.start()
    worker.stop.set()
    return int(consumer.exitcode or 0)
