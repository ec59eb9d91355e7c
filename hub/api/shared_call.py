"""One look for all who ask: while one is under way, those who come wait for the next, together.

A look that began before somebody asked may have missed what was committed in between, so that nobody is answered by it.
Looks have a thread of their own: in one that they shared with uploads they would wait behind all that wait to write.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Found = TypeVar("Found")


class SharedCall(Generic[Found]):
    """Runs a call in its own thread, one at a time; whoever awaits `done` is served by a run that began after asking.

    The call is given the names of all whom it serves, and each of them what it returned.
    """

    def __init__(self, call: Callable[[frozenset[str]], Found]) -> None:
        self._call, self._thread = call, ThreadPoolExecutor(1, thread_name_prefix="wardround-look")
        self._names: set[str] = set()
        self._running: asyncio.Task[Found] | None = None
        self._next: asyncio.Task[Found] | None = None

    async def done(self, name: str) -> Found:
        """Return what a run found that began after this was called. Raises: what the run raised."""
        self._names.add(name)
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._after(self._running))
        return await asyncio.shield(self._next)

    async def _after(self, running: "asyncio.Task[Found] | None") -> Found:
        if running is not None:
            await asyncio.wait([running])
        names, self._names = frozenset(self._names), set()
        self._running, self._next = self._next, None
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._call, names)
