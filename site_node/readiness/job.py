"""The worker's job behind a readiness report: from the gate's order to the machine's figures, whatever fails."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import structlog

from protocol.errors import ProtocolError
from protocol.study import parse_study
from site_node.errors import SiteError
from site_node.machine_figures import MachineFigures, write_machine_figures
from site_node.orders import read_order
from site_node.readiness.machine import machine_figures
from site_node.settings import SiteSettings

LONGEST_SECONDS = 900.0
"""Nobody has approved the study yet: it may not keep the machine from those that were."""
_log = structlog.get_logger()


def tell_machine(settings: SiteSettings, task_id: str) -> None:
    """Do what the gate ordered. Without an order nothing is done.

    Guarantee: a job that was begun ends with figures; where looking fails they say that nothing was seen.
    """
    order = read_order(settings.paths, task_id)
    if order is None:
        return
    try:
        with _ending_after(LONGEST_SECONDS):
            figures = machine_figures(settings, parse_study(order.study), order.recount)
    except Exception as error:  # a foreign exception's text may hold a path: only its kind is logged
        said = str(error) if isinstance(error, SiteError | ProtocolError) else type(error).__name__
        _log.error("machine_not_measured", task=task_id, error=said)
        figures = MachineFigures.model_validate({"study_digest": order.study_digest, "number": order.recount})
    write_machine_figures(settings.paths, figures)
    _log.info("machine_measured", task=task_id)


@contextmanager
def _ending_after(seconds: float) -> Iterator[None]:
    """End what is done within the block with a TimeoutError; only a process's main thread can be ended so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _end)
    left, again = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left, again)  # whoever waited for one goes on


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError
