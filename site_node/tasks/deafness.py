"""A worker that takes no message any more ends by itself, so that whoever started it starts it again.

A message is acknowledged when its job is done, and until then no other is asked for. If Redis is away at that very
moment, the broker's library keeps the message as one under way: the worker lives, has nothing to do, and asks for
nothing ever again, though Redis is back (seen with kombu 5.7; a smaller window than the one of its issue 2629).
"""

import os
import signal
import threading
import time
from typing import Any

import structlog

LOOK_SECONDS = 2.0
LOOKS = 5
_log = structlog.get_logger()


def is_deaf(worker: Any) -> bool:
    """Tell whether a Celery worker has nothing to do and yet may take nothing."""
    from celery.worker import state

    channel = getattr(getattr(worker.consumer, "task_consumer", None), "channel", None)
    if channel is None or state.active_requests or state.reserved_requests:
        return False
    return not channel.qos.can_consume()


def end_when_deaf(worker: Any, look_seconds: float = LOOK_SECONDS) -> threading.Thread:
    """Watch a worker in a thread of its own, and ask this process to end once it was deaf at several looks in a row."""

    def watch() -> None:
        deaf = 0
        while deaf < LOOKS:
            time.sleep(look_seconds)
            deaf = deaf + 1 if is_deaf(worker) else 0
        _log.error("worker_deaf", remedy="It ends now; systemd (Restart=always) or the demo starts it again.")
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch, name="deafness", daemon=True)
    thread.start()
    return thread
