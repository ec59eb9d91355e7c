"""One look for all who ask: while one is under way, those who come wait for the next, together.

A look that began before somebody asked may have missed what was committed in between, so that nobody is answered by it.
"""

import asyncio
from collections.abc import Callable


class SharedCall:
    """Runs a call in a thread, one at a time; whoever awaits `done` is served by a run that began after asking."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def done(self) -> None:
        """Return after a run that began after this was called. Raises: what the run raised."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._after(self._running))
        await asyncio.shield(self._next)

    async def _after(self, running: "asyncio.Task[None] | None") -> None:
        if running is not None:
            await asyncio.wait([running])
        self._running, self._next = self._next, None
        await asyncio.to_thread(self._call)
