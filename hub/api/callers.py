"""Who is calling, as they stand now. Sites call all the time, so that one look at their states serves all who came."""

import asyncio

import structlog

from hub.api.shared_call import SharedCall
from hub.auth.coordinator import bearer_of, check_enrolled, note_seen, person_of
from hub.auth.identity import Caller
from hub.auth.roles import SITE_ROLE
from hub.services import Services
from hub.storage import stores

_log = structlog.get_logger()


class Callers:
    """One process's look at who may call.

    Guarantee: an answer rests on a look that began after the request came: who was suspended or disabled before it is
        refused.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._look = SharedCall(self._read_states)
        self._noting: set[asyncio.Task[None]] = set()

    async def of(self, token: str) -> Caller:
        """Return who carries a token.

        Raises: AuthenticationError, NotPermittedError.
        """
        bearer = bearer_of(self._services, token)
        if bearer.kind == "person":
            return await asyncio.to_thread(person_of, self._services, bearer.name)
        states = await self._look.done(bearer.name)
        check_enrolled(states.get(bearer.name))
        note = note_seen(self._services, bearer.name)
        if note is not None:  # whoever happens to call just now need not wait for the writers before it
            noting = asyncio.get_running_loop().create_task(asyncio.to_thread(note))
            self._noting.add(noting)
            noting.add_done_callback(self._forget)
        return Caller("site", bearer.name, SITE_ROLE)

    async def noted(self) -> None:
        """Return when the calls that were to be written down are."""
        if self._noting:
            await asyncio.wait(set(self._noting))

    def _read_states(self, sites: frozenset[str]) -> dict[str, str]:
        with self._services.looking() as connection:
            return stores.enrolled_states(connection, sites)

    def _forget(self, noting: "asyncio.Task[None]") -> None:
        self._noting.discard(noting)
        if not noting.cancelled() and noting.exception() is not None:
            _log.warning("calls_not_noted", why=type(noting.exception()).__name__)
