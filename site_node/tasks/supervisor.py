"""Finds orders that nobody works on and queues them again: a worker was killed, Redis was lost, a pause ended.

Duplicates are harmless (`run_order.py`), so it asks only whether the order's versions are here, and whether there is a
result or a live lease. It also deletes what is kept here of studies that have ended (`ended_studies.py`), and the
checkpoints of tasks that have (`checkpoint_folders.py`).
"""

import threading
from collections.abc import Callable

import structlog

from site_node.checkpoint_folders import erase_ended_tasks
from site_node.durable import finished_files
from site_node.errors import OrderError, SiteError
from site_node.orders import read_order
from site_node.tasks.ended_studies import erase_ended
from site_node.tasks.run_order import Worker, has_versions, may_begin, result_exists

INTERVAL_SECONDS = 1.0
AGAIN_SECONDS = 20.0
GRACE_SECONDS = 2.0
_log = structlog.get_logger()


class Supervisor:
    """Watches the orders of a site. `enqueue` puts a job id on the queue and tells whether it was taken."""

    def __init__(self, worker: Worker, enqueue: Callable[[str], bool]) -> None:
        self._worker = worker
        self._enqueue = enqueue
        self._next: dict[str, float] = {}

    def look(self) -> list[str]:
        """Enqueue what nobody works on; return the task ids."""
        now, waiting = self._worker.clock(), self._waiting()
        # A clock that was set back must not make it wait for longer than it ever would.
        known = {task_id: min(due, now + AGAIN_SECONDS) for task_id, due in self._next.items()}
        self._next = {task_id: known.get(task_id, now + GRACE_SECONDS) for task_id in waiting}
        due = [task_id for task_id in waiting if now >= self._next[task_id]]
        for task_id in due:
            self._next[task_id] = now + AGAIN_SECONDS
            if self._enqueue(task_id):
                _log.info("order_enqueued_again", task=task_id)
        return due

    def run(self) -> None:
        """Look once a second until the worker ends."""
        while not self._worker.stop.wait(INTERVAL_SECONDS):
            try:
                self.look()
                if erased := erase_ended(self._worker.settings.paths):
                    _log.info("ended_studies_erased", studies=erased)
                erase_ended_tasks(self._worker.settings.paths, self._worker.clock())
            except (SiteError, OSError) as error:
                _log.error("supervisor_failed", why=str(error))

    def start(self) -> threading.Thread:
        """Run in a thread of its own."""
        thread = threading.Thread(target=self.run, name="supervisor", daemon=True)
        thread.start()
        return thread

    def _waiting(self) -> list[str]:
        paths, leases = self._worker.settings.paths, self._worker.leases()
        try:
            found = []
            for path in finished_files(paths.orders, ".json"):
                try:
                    order = read_order(paths, path.stem)
                except OrderError:
                    continue
                if order is None or result_exists(paths, order) or not has_versions(paths, order):
                    continue
                if may_begin(self._worker, order) and leases.is_free(path.stem):
                    found.append(path.stem)
            return found
        finally:
            leases.close()
