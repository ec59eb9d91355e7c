"""A hub in this process: its real API, called in memory; closing a round is called when the API asks for it."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from compose.in_memory import BASE_URL, InMemoryTransport
from compose.person import Person, new_accounts
from hub.api.app import assemble
from hub.auth.coordinator import add_person
from hub.registry.given_weights import give_weights
from hub.rounds.committing import close_round
from hub.rounds.deadlines import tick
from hub.services import open_services
from hub.settings import Settings, write_settings
from hub.storage.migrate import upgrade
from protocol.keeping import Keeping, in_one_process
from protocol.study import StudySpec

ACTOR = "simulation"


class SimulatedHub:
    """The hub of a simulation; `keeping` is how it and its sites keep their files."""

    def __init__(self, folder: Path, keeping: Keeping | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._asked: list[dict[str, Any]] = []
        self.keeping = keeping or in_one_process()
        settings = Settings(dir=folder, keeping=self.keeping)
        write_settings(settings)  # so that `wardround hub serve` can show the result afterwards
        self._services = open_services(settings, lambda _, arguments: self._asked.append(arguments))
        upgrade(self._services.database)
        self._transport = InMemoryTransport(assemble(self._services))
        self._people = {role: self._person(role, password) for role, password in new_accounts().items()}

    @property
    def researcher(self) -> Person:
        """Return the person who proposes the study and reads its results."""
        return self._people["researcher"]

    def invite(self, site: str) -> str:
        """Invite a site and return its code."""
        code: str = self._people["operator"].post("/v1/sites/invitations", json={"name": site})["code"]
        return code

    def client(self) -> httpx.Client:
        """Return a client for a site's agent."""
        return httpx.Client(transport=self._transport, base_url=BASE_URL)

    def propose(self, study: StudySpec) -> None:
        """Propose the study to all sites."""
        self.researcher.post("/v1/studies", content=study.canonical_bytes())

    def give_weights(self, path: Path) -> None:
        """Take in weights from outside, that the study may start from."""
        give_weights(self._services, path, ACTOR)

    def step(self) -> int:
        """Do what the API asked for, and look at the deadlines; return how much there was to do."""
        asked, self._asked[:] = list(self._asked), []
        for arguments in asked:
            close_round(self._services, **arguments)
        return len(asked) + tick(self._services)

    def __enter__(self) -> Self:
        """Return this hub."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close its database and its event loop."""
        self._transport.close()
        self._services.database.close()

    def _person(self, role: str, password: str) -> Person:
        add_person(self._services, role, role, password, ACTOR)
        return Person(BASE_URL, role, password, self._transport)
