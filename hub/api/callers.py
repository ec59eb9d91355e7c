"""Who is calling, as they stand now. Sites call all the time, so that one look at their states serves all who came."""

import asyncio

from hub.api.shared_call import SharedCall
from hub.auth.coordinator import bearer_of, check_enrolled, note_seen, person_of
from hub.auth.identity import Caller
from hub.auth.roles import SITE_ROLE
from hub.services import Services
from hub.storage import stores


class Callers:
    """One process's look at who may call.

    Guarantee: an answer rests on a look that began after the request came: who was suspended or disabled before it is
        refused.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._states: dict[str, str] = {}
        self._look = SharedCall(self._read_states)

    async def of(self, token: str) -> Caller:
        """Return who carries a token.

        Raises: AuthenticationError, NotPermittedError.
        """
        bearer = bearer_of(self._services, token)
        if bearer.kind == "person":
            return await asyncio.to_thread(person_of, self._services, bearer.name)
        await self._look.done()
        check_enrolled(self._states.get(bearer.name))
        note = note_seen(self._services, bearer.name)
        if note is not None:
            await asyncio.to_thread(note)
        return Caller("site", bearer.name, SITE_ROLE)

    def _read_states(self) -> None:
        with self._services.reading() as session:
            self._states = stores.enrolled_states(session)
