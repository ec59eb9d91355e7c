"""A hub and its hospitals on one machine: made once, then started, each part a process of its own.

Every step looks first whether it has been done, so that a run that was ended anywhere is simply run again.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml

from compose.errors import ServiceError
from compose.layout import DemoLayout, write_json
from compose.person import Person, is_healthy, new_accounts
from compose.ports import LOOPBACK, is_free, listens, next_free_port
from compose.processes import Supervisor
from compose.programs import Programs
from compose.redis_server import RedisServer, prepare_redis
from protocol.signing import SigningKey
from site_node.governance.peers import load_peers, write_peers
from site_node.settings import SitePaths

HUB_PORT = 8440
UI_PORT = 8501
SITE_PARTS = ("gate", "worker", "agent")
START_SECONDS = 90.0
LOOK_SECONDS = 0.05
PORT_ATTEMPTS = 5
Say = Callable[[str], None]


@dataclass(frozen=True)
class Federation:
    """How to reach what runs."""

    hub_url: str
    ui_url: str
    people: Mapping[str, str]
    new_people: bool
    sites: tuple[str, ...]

    def person(self, role: str) -> Person:
        """Return the person of a role."""
        return Person(self.hub_url, role, self.people[role])


class FederationStarter:
    """Brings a demo's federation up under a supervisor."""

    def __init__(
        self, layout: DemoLayout, supervisor: Supervisor, programs: Programs, hospitals: Mapping[str, Path], say: Say
    ) -> None:
        self._layout = layout
        self._supervisor = supervisor
        self._programs = programs
        self._hospitals = hospitals
        self._say = say
        self._redis: dict[str, RedisServer] = {}

    def start(self) -> Federation:
        """Make what is missing, start every process and return once the hub answers and all hospitals are enrolled.

        Raises: ServiceError if a command fails or a process does not stay up; Interrupted.
        """
        with self._supervisor.nursery(self._layout.log("nursery")):
            self._start_redis()
            self._make_folders()
            new_people = not self._layout.people.exists()
            people = self._people()
            hub_url = self._start_hub()
            self._point_sites_at(hub_url)
            federation = Federation(hub_url, "", people, new_people, tuple(self._hospitals))
            self._supervisor.start(self._programs.hub_worker(self._redis["hub"].url))
            pages = self._begin_ui(hub_url)
            self._enrol(federation)
            self._pin_each_other()
            for name in self._hospitals:
                for part in SITE_PARTS:
                    self._supervisor.start(self._programs.site_process(name, part))
        return replace(federation, ui_url=self._ui_address(hub_url, pages))

    def _start_redis(self) -> None:
        folders = {
            "hub": self._layout.hub_redis,
            **{name: self._layout.site(name) / "redis" for name in self._hospitals},
        }
        taken: set[int] = set()
        for owner, folder in folders.items():
            self._prepare_redis(owner, folder, taken)
        self._wait(
            lambda: all(self._redis_is_up(owner, folders[owner], taken) for owner in folders), "the Redis servers"
        )

    def _prepare_redis(self, owner: str, folder: Path, taken: set[int]) -> None:
        role = f"{owner} redis"
        server = prepare_redis(folder, role, self._layout.log(role), taken)
        taken |= {server.port} if server.port is not None else set()
        self._redis[owner] = server
        self._supervisor.replace(server.service)

    def _redis_is_up(self, owner: str, folder: Path, taken: set[int]) -> bool:
        server = self._redis[owner]
        up = self._supervisor.pid(server.service.role) is not None
        if not up and server.port is not None and not is_free(server.port):
            self._prepare_redis(owner, folder, taken)  # another program was quicker
        return up and server.answers()

    def _make_folders(self) -> None:
        commands = [] if (self._layout.hub / "hub.yaml").exists() else [self._programs.hub_init()]
        for name, images in self._hospitals.items():
            if not (self._layout.site(name) / "site.yaml").exists():
                commands.append(self._programs.site_init(name, f"http://{LOOPBACK}:{HUB_PORT}", images))
        if commands:
            self._say("Making the hub and the hospitals")
            self._supervisor.run(*commands)
        missing = [
            name for name in self._hospitals if not (self._layout.site(name) / "worker" / "index.sqlite").exists()
        ]
        if missing:
            self._say("Indexing the hospitals' images")
            self._supervisor.run(*(self._programs.site_index(name) for name in missing))

    def _people(self) -> Mapping[str, str]:
        if not self._layout.people.exists():
            accounts = new_accounts()
            # First the file, then the accounts: a run ended in between leaves no account whose password nobody has.
            pending = self._layout.new_people
            if pending.exists():
                accounts = json.loads(pending.read_text(encoding="utf-8"))
            write_json(pending, accounts, mode=0o600)
            (listing,) = self._supervisor.run(self._programs.list_people())
            there = {person["name"] for person in json.loads(listing)}
            missing = {role: password for role, password in accounts.items() if role not in there}
            self._supervisor.run(*(self._programs.add_person(role, role, word) for role, word in missing.items()))
            pending.replace(self._layout.people)
        people: dict[str, str] = json.loads(self._layout.people.read_text(encoding="utf-8"))
        return people

    def _start_hub(self) -> str:
        self._say("Starting the hub")
        url = self._redis["hub"].url
        port = self._start_on_port("hub", HUB_PORT, lambda p: self._programs.hub_api(p, url), is_healthy)
        return f"http://{LOOPBACK}:{port}"

    def _begin_ui(self, hub_url: str) -> int:
        """Start the pages and return their port; they load while the hospitals are enrolled."""
        port = next_free_port(self._layout.state().ports.get("ui", UI_PORT))
        self._supervisor.replace(self._programs.ui(hub_url, port))
        return port

    def _ui_address(self, hub_url: str, begun: int) -> str:
        """Return the pages' address once they answer: on the port where they were begun, or on another."""
        made = partial(self._programs.ui, hub_url)
        if self._answers("ui", made(begun).role, begun, ui_is_healthy):
            return f"http://{LOOPBACK}:{begun}"
        return f"http://{LOOPBACK}:{self._start_on_port('ui', UI_PORT, made, ui_is_healthy)}"

    def _start_on_port(
        self, remembered: str, first: int, service: Callable[[int], Any], healthy: Callable[[str], bool]
    ) -> int:
        """Start a server on its port of the last run or the next free one; try the next if another takes it first."""
        port = self._layout.state().ports.get(remembered, first)
        for _ in range(PORT_ATTEMPTS):
            port = next_free_port(port)
            made = service(port)
            self._supervisor.replace(made)
            if self._answers(remembered, made.role, port, healthy):
                return port
        raise ServiceError(
            f"'{service(port).role}' found no free port from {first} on. End the programs that hold them."
        )

    def _answers(self, remembered: str, role: str, port: int, healthy: Callable[[str], bool]) -> bool:
        """Wait until a started server answers, and remember its port; False if another program took the port."""
        if not self._comes_up(role, port, partial(healthy, f"http://{LOOPBACK}:{port}")):
            return False
        self._layout.remember(self._layout.state().with_port(remembered, port))
        return True

    def _comes_up(self, role: str, port: int, healthy: Callable[[], bool]) -> bool:
        lost = 0
        for _ in range(int(START_SECONDS / LOOK_SECONDS)):
            self._supervisor.pause(LOOK_SECONDS)
            process = self._supervisor.pid(role)
            if process is not None and listens(process, port) and healthy():
                return True
            lost = lost + 1 if process is None and not is_free(port) else 0
            if lost > 1:  # our program ended, and somebody else holds the port
                return False
        raise ServiceError(f"'{role}' did not answer within {START_SECONDS:.0f} s. See {self._layout.log(role)}.")

    def _point_sites_at(self, hub_url: str) -> None:
        for name in self._hospitals:
            path = self._layout.site(name) / "site.yaml"
            written = yaml.safe_load(path.read_text(encoding="utf-8"))
            wanted = {**written, "hub": hub_url, "redis": self._redis[name].url, "threads": self._programs.threads}
            if wanted != written:
                path.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
                path.chmod(0o600)

    def _enrol(self, federation: Federation) -> None:
        operator = federation.person("operator")
        try:
            known = {site["name"] for site in operator.get("/v1/sites") if site["state"] == "enrolled"}
            missing = [name for name in self._hospitals if name not in known or not self._has_hub_key(name)]
            if missing:
                self._say(f"Enrolling {', '.join(missing)}")
                codes = self._invite(operator, [name for name in missing if name not in known])
                self._supervisor.run(*(self._programs.site_enroll(name, codes[name]) for name in missing))
                self._layout.invitations.unlink(missing_ok=True)
        finally:
            operator.close()

    def _pin_each_other(self) -> None:
        """Pin every hospital's key at the others, as their administrators would over the telephone."""
        paths = {name: SitePaths(self._layout.site(name)) for name in self._hospitals}
        keys = {name: SigningKey.load_or_create(path.identity_key).public for name, path in paths.items()}
        for name, path in paths.items():
            wanted = {other: key for other, key in keys.items() if other != name}
            if load_peers(path) != wanted:
                write_peers(path, wanted)

    def _invite(self, operator: Person, names: list[str]) -> dict[str, str]:
        """Invite, and keep the codes until all are enrolled: an enrolment whose answer was lost needs its own again."""
        path = self._layout.invitations
        codes: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        codes |= {name: operator.post("/v1/sites/invitations", json={"name": name})["code"] for name in names}
        write_json(path, codes, mode=0o600)
        return codes

    def _has_hub_key(self, name: str) -> bool:
        return (self._layout.site(name) / "gate" / "hub.pub").exists()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(int(START_SECONDS / LOOK_SECONDS)):
            if condition():
                return
            self._supervisor.pause(LOOK_SECONDS)
        raise ServiceError(f"After {START_SECONDS:.0f} s {what} did not answer. See {self._layout.root / 'logs'}.")


def ui_is_healthy(address: str) -> bool:
    """Tell whether Streamlit answers at this address."""
    try:
        return httpx.get(f"{address}/_stcore/health", timeout=2.0, trust_env=False).is_success
    except httpx.TransportError:
        return False
