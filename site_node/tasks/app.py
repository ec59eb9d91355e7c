"""The Celery application of one site: JSON only, job ids only, one queue named after the site.

Redis carries nothing but task ids; what a task is lies in its order, which only the gate can write. Recovery never
waits for the broker: with late acknowledgement a killed worker's message comes back only after the visibility timeout,
so a supervisor in every worker asks the site's own folders and leases instead (`supervisor.py`).
"""

from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from site_node.settings import SiteSettings

TASK_NAME = "wardround.run_order"
VISIBILITY_SECONDS = 6 * 3600
_REMEDY = "The worker finds the order by itself within seconds. If the site's Redis is down, start it."
_log = structlog.get_logger()


def queue_of(settings: SiteSettings) -> str:
    """Return the name of the site's queue."""
    return f"wardround.{settings.name}"


def verified(redis_url: str) -> str:
    """Return a Redis address that checks the server's certificate: without a word kombu encrypts and checks nothing.

    >>> verified("rediss://redis.hospital:6379/0")
    'rediss://redis.hospital:6379/0?ssl_cert_reqs=CERT_REQUIRED'
    """
    if not redis_url.startswith("rediss://") or "ssl_cert_reqs=" in redis_url:
        return redis_url
    return f"{redis_url}{'&' if '?' in redis_url else '?'}ssl_cert_reqs=CERT_REQUIRED"


def make_app(settings: SiteSettings) -> Any:
    """Return the Celery application; sending needs nothing else, working is set up in `run_order.py`."""
    app = Celery("wardround-site", broker=verified(settings.redis_url))
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_default_queue=queue_of(settings),
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"visibility_timeout": VISIBILITY_SECONDS, "socket_connect_timeout": 5},
    )
    return app


def enqueue(app: Any, task_id: str) -> bool:
    """Put a job id on the queue; tell whether Redis took it. If not, the worker's supervisor finds the order itself."""
    try:
        app.send_task(TASK_NAME, args=[task_id], retry=False)
    except OperationalError:
        _log.warning("redis_away", task=task_id, remedy=_REMEDY)
        return False
    return True
