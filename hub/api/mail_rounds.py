"""The mail of one process of the hub, as its event loop hands it out: one look at new mail for all who ask.

Each look wakes the readers of all whose mail it found: a wake-up that was lost on its way costs them no more than the
time to the next look, whoever asks for it, and the process asks by itself from time to time.
"""

import asyncio
from typing import Any

import structlog

from hub.api.shared_call import SharedCall
from hub.rounds.delivery import Mailroom, mark_delivered
from hub.services import Services

_log = structlog.get_logger()


class MailRounds:
    """The mail of one process of the hub, as its event loop hands it out."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._room = Mailroom(services)
        self._look = SharedCall(self._read_new_mail)
        self._mark = SharedCall(self._mark_fetched)
        self._marking: set[asyncio.Task[None]] = set()

    async def fetch(self, site: str, after: int) -> list[dict[str, Any]]:
        """Return a site's mail after a number; that it was fetched is noted soon after."""
        await self._look.done(site)
        items = self._room.known(site, after)
        if items is None:
            items = await asyncio.to_thread(self._room.ask, site, after)
        if items:
            marking = asyncio.get_running_loop().create_task(self._mark.done(site))
            self._marking.add(marking)
            marking.add_done_callback(self._forget)
        return items

    async def keep_looking(self, every_seconds: float) -> None:
        """Look for new mail again and again until cancelled; a look that fails is logged, and the next one is made."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await self._look.done("")
            except Exception as error:
                _log.warning("no_look_at_mail", why=type(error).__name__)

    def _read_new_mail(self, _asking: frozenset[str]) -> None:
        self._services.waker.wake_here(*self._room.refresh())

    def _mark_fetched(self, sites: frozenset[str]) -> None:
        mark_delivered(self._services, sites)

    def _forget(self, marking: "asyncio.Task[None]") -> None:
        self._marking.discard(marking)
        if not marking.cancelled() and marking.exception() is not None:
            _log.warning("delivery_not_noted", why=type(marking.exception()).__name__)
