"""The traffic of downloads: counted after each, and for all that ended meanwhile in one transaction.

A round's version goes to all its sites at once, so that many downloads end at once; each would else wait for the
writers before it to add a number to its own task.
"""

from collections import Counter

from hub.api.shared_call import SharedCall
from hub.rounds.downloads import count_sent
from hub.services import Services


class SentBytes:
    """One process's downloads that have ended and are not counted yet."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sent: Counter[str] = Counter()
        self._writing = SharedCall(self._write)

    async def add(self, task_id: str, sent_bytes: int) -> None:
        """Add to a task's traffic; return once it is written."""
        self._sent[task_id] += sent_bytes
        await self._writing.done(task_id)

    def _write(self, tasks: frozenset[str]) -> None:
        count_sent(self._services, {task_id: self._sent.pop(task_id, 0) for task_id in tasks})
