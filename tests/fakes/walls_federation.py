"""A hub and hospitals as real processes, each in a network of its own, with cables that can be cut and slowed.

    hospital 0 ──cable──┐
    hospital 1 ──cable──┤ hub (API, Celery worker, Redis)
    hospital 2 ──cable──┘

Each hospital is gate, agent, Celery worker and a Redis on a Unix socket; all is real but the training: the worker hands
over a random update in its place (`tests/benchmarks/rounds_without_training/job.py`), so that a model of any size costs
seconds. Folders, keys and accounts are made by the functions behind `init`, `users add` and `invite`; the hospitals
enrol through their cables. Needs root, as `walls.py` does.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compose import leash
from compose.programs import DIRECT, THREAD_VARIABLES
from compose.redis_server import prepare_redis
from hub.auth.coordinator import add_person, invite_site
from hub.rounds.views import round_views
from hub.services import Services, open_services
from hub.settings import Settings, write_settings
from hub.storage import stores
from hub.storage.migrate import upgrade
from protocol.study import StudySpec
from site_node.enrolment import create_site
from site_node.settings import SitePaths
from tests.benchmarks.rounds_without_training.federation import POLICY
from tests.benchmarks.rounds_without_training.job_name import PARAMETERS, PATIENTS
from tests.fakes.walls import CHECKOUT, Zone, connect

NAMES = ("anna", "bela", "clara")
HUB_PORT = 8440
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 -- of the hub's own namespace
PASSWORD = "a password of this test"
WARDROUND = (sys.executable, "-P", "-m", "compose.cli")
WORKER = (sys.executable, "-m", "tests.benchmarks.rounds_without_training.worker")
START_SECONDS = 120.0
CALLER = """
import json, sys, httpx
url, login, method, path, body = sys.argv[1], *json.load(sys.stdin)
with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as client:
    if method == "SIGN-IN":
        answer = client.post("/v1/token/person", json=login)
    else:
        answer = client.request(method, path, headers={"Authorization": f"Bearer {login}"}, content=body)
    print(json.dumps([answer.status_code, answer.json()]))
"""


@dataclass(frozen=True)
class Cable:
    """One hospital's way to the hub. Its end at the hospital is `cable1`; the hub's has a name of its own."""

    number: int
    hub: Zone
    site: Zone

    @classmethod
    def lay(cls, number: int, hub: Zone, site: Zone) -> "Cable":
        """Lay it between two networks that have no such cable yet."""
        connect(hub, f"10.203.{number}.1/30", site, f"10.203.{number}.2/30")
        hub.ip("link set cable0 down")
        hub.ip(f"link set cable0 name cable0-{number}")
        hub.ip(f"link set cable0-{number} up")
        site.ip("link set lo up")
        return cls(number, hub, site)

    @property
    def hub_url(self) -> str:
        """The hub's address at the other end."""
        return f"http://10.203.{self.number}.1:{HUB_PORT}"

    def cut(self) -> None:
        """Let nothing pass any more."""
        self.site.ip("link set cable1 down")

    def join(self) -> None:
        """Let everything pass again."""
        self.site.ip("link set cable1 up")

    def forget_connections(self) -> None:
        """End the hospital's connections as a firewall does that was started anew; the hub is told nothing."""
        words = [*self.site.entered(), "ss", "--kill", "dst", f"10.203.{self.number}.1"]
        subprocess.run(words, check=False, capture_output=True)  # sockets that are closing already are no error here

    def slow(self, megabits: float) -> None:
        """Pass no more than this each way, in megabits a second (a token bucket, which every kernel with tc has)."""
        for zone, name in ((self.hub, f"cable0-{self.number}"), (self.site, "cable1")):
            rate = f"rate {megabits}mbit burst 64kb latency 200ms"
            words = [*zone.entered(), "tc", "qdisc", "replace", "dev", name, "root", "tbf", *rate.split()]
            subprocess.run(words, check=True)

    def delivered_bytes(self) -> int:
        """Return what has come out at both ends so far, with all headers, retransmissions included."""
        ends = ((self.hub, f"cable0-{self.number}"), (self.site, "cable1"))
        total = 0
        for zone, name in ends:
            words = [*zone.entered(), "ip", "-stats", "-json", "link", "show", "dev", name]
            found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            total += int(found[0]["stats64"]["rx"]["bytes"])
        return total


@dataclass
class WalledFederation:
    """What runs, and how it is reached from outside."""

    folder: Path
    hub_zone: Zone
    services: Services
    environment: dict[str, str]
    token: str = ""
    cables: dict[str, Cable] = field(default_factory=dict)
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    commands: dict[str, tuple[Zone, tuple[str, ...], Mapping[str, str]]] = field(default_factory=dict)

    @property
    def hub(self) -> Path:
        """The hub's folder."""
        return self.folder / "hub"

    @property
    def sites(self) -> dict[str, Path]:
        """The hospitals' folders."""
        return {name: self.paths(name).root for name in self.cables}

    def paths(self, name: str) -> SitePaths:
        """Return where everything of a hospital lies."""
        return SitePaths(self.folder / name)

    def log(self, role: str) -> str:
        """Return what a process has printed."""
        return (self.folder / "logs" / f"{role}.log").read_text(encoding="utf-8", errors="replace")

    def start(self, role: str, zone: Zone, words: Sequence[str], **variables: str) -> None:
        """Start a process that stays up and ends with this one."""
        self.commands[role] = (zone, tuple(words), variables)
        command = [*zone.entered(), sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *words]
        with (self.folder / "logs" / f"{role}.log").open("ab") as log:
            self.running[role] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**self.environment, **variables},
                start_new_session=True,
            )

    def restart(self, role: str) -> None:
        """Kill a process, with all that it started, and start it again."""
        self.end(role)
        self.start_again(role)

    def start_again(self, role: str) -> None:
        """Start a process that was ended as it was started before."""
        zone, words, variables = self.commands[role]
        self.start(role, zone, words, **variables)

    def end(self, role: str) -> None:
        """Kill a process with all that it started."""
        process = self.running.pop(role)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def call(self, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
        """Let the researcher call the hub's API from the hub's own network; return status and answer.

        She signs in at her first call; a status of 0 says that nobody answered.
        """
        if not self.token:
            status, answer = self._call({"name": "rita", "password": PASSWORD}, "SIGN-IN", "", None)
            if status != 200:
                return status, answer
            self.token = str(answer["access_token"])
        return self._call(self.token, method, path, body)

    def _call(self, login: object, method: str, path: str, body: str | None) -> tuple[int, Any]:
        done = subprocess.run(
            [*self.hub_zone.entered(), sys.executable, "-c", CALLER, f"http://127.0.0.1:{HUB_PORT}"],
            input=json.dumps([login, method, path, body]),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
        )
        if done.returncode != 0:
            return 0, done.stderr
        status, answer = json.loads(done.stdout)
        return status, answer

    def propose(self, study: StudySpec) -> str:
        """Propose a study and return its digest."""
        status, answer = self.call("POST", "/v1/studies", study.canonical_bytes().decode())
        assert status == 201, answer
        return study.digest

    def state(self, digest: str) -> tuple[str, str]:
        """Return a study's state and its reason."""
        with self.services.reading() as session:
            row = stores.study(session, digest)
            return row.state, row.reason

    def rounds(self, digest: str) -> list[dict[str, Any]]:
        """Return the rounds as the researcher sees them."""
        with self.services.reading() as session:
            return round_views(session, digest, time.time())

    def site(self, name: str, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a `wardround site` command on a hospital's folder, in its network."""
        command, *options = words
        line = [*self.cables[name].site.entered(), *WARDROUND, "site", command, str(self.paths(name).root), *options]
        return subprocess.run(line, capture_output=True, text=True, check=False, cwd="/", env=self.environment)

    def wait_until(self, condition: Callable[[], object], seconds: float, pause: float = 0.2) -> None:
        """Wait for something while every process lives."""
        until = time.monotonic() + seconds
        while not condition():
            for role, process in self.running.items():
                assert process.poll() is None, f"{role} ended with {process.returncode}\n{self.log(role)[-3000:]}"
            assert time.monotonic() < until, f"it did not happen in {seconds} s\n{self.last_words()}"
            time.sleep(pause)

    def last_words(self) -> str:
        """Return the last lines of every log."""
        return "\n".join(
            f"== {role}\n{self.log(role)[-1500:]}" for role in sorted(self.commands) if "redis" not in role
        )

    def close(self) -> None:
        """End everything."""
        for role in list(self.running):
            self.end(role)
        self.services.database.close()
        for cable in self.cables.values():
            cable.site.close()
        self.hub_zone.close()


@contextmanager
def walled_federation(
    parameters: int,
    names: Sequence[str] = NAMES,
    policy: str = POLICY,
    prepare: Callable[[Path, ExitStack], object] = lambda folder, ending: None,
    enrolled: Callable[[str, Path], object] = lambda name, site: None,
    variables: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[WalledFederation]:
    """Bring hub and hospitals up, enrolled and ready, and end all of it afterwards.

    Args:
        parameters: of the model that the workers make up.
        prepare: called with the new folder before anything lies in it, to mount something there; what it puts on the
            stack is called at the end.
        enrolled: called with a hospital's name and folder once it is enrolled and none of its processes runs.
        variables: more of the environment for a role (`hub api`, `anna gate`) or an owner (`hub`, `anna`).
    """
    # Short, because a Unix socket's path is; not pytest's folder.
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True)))
        (folder / "logs").mkdir()
        ending = stack.enter_context(ExitStack())
        prepare(folder, ending)
        made = _prepared(folder, parameters)
        try:
            _start_hub(made, variables or {})
            for number, site in enumerate(names):
                _start_site(made, number, site, policy, variables or {}, enrolled)
            yield made
        except BaseException:
            print(made.last_words())  # noqa: T201 - what a failed run leaves for a person to read
            raise
        finally:
            made.close()


def _prepared(folder: Path, parameters: int) -> WalledFederation:
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(folder), "PYTHONPATH": str(CHECKOUT)}
    environment |= {**DIRECT, PARAMETERS: str(parameters), "PYTHONUNBUFFERED": "1"}
    environment |= dict.fromkeys(THREAD_VARIABLES, "1")
    (folder / "hub").mkdir(exist_ok=True)
    settings = Settings(dir=folder / "hub")
    write_settings(settings)
    services = open_services(settings, lambda *_: None)
    upgrade(services.database)
    add_person(services, "rita", "researcher", PASSWORD, "operator:console")
    zone = Zone.make()
    zone.ip("link set lo up")
    return WalledFederation(folder, zone, services, environment)


def _start_redis(made: WalledFederation, owner: str, zone: Zone) -> str:
    server = prepare_redis(
        made.folder / f"{owner}-redis", f"{owner} redis", made.folder / "logs" / f"{owner} redis.log"
    )
    made.start(f"{owner} redis", zone, server.service.command)
    made.wait_until(server.answers, START_SECONDS)
    return server.url


def _start_hub(made: WalledFederation, variables: Mapping[str, Mapping[str, str]]) -> None:
    url = _start_redis(made, "hub", made.hub_zone)
    serve = ("serve", str(made.hub), "--host", EVERY_ADDRESS, "--port", str(HUB_PORT), "--strict-port")
    for part, words in (("api", serve), ("worker", ("worker", str(made.hub)))):
        more = {**variables.get("hub", {}), **variables.get(f"hub {part}", {}), "WARDROUND_HUB_REDIS": url}
        made.start(f"hub {part}", made.hub_zone, [*WARDROUND, "hub", *words], **more)
    made.wait_until(lambda: made.call("GET", "/v1/studies")[0] == 200, START_SECONDS)


def _start_site(
    made: WalledFederation,
    number: int,
    name: str,
    policy: str,
    variables: Mapping[str, Mapping[str, str]],
    enrolled: Callable[[str, Path], object],
) -> None:
    zone = Zone.make()
    cable = made.cables[name] = Cable.lay(number, made.hub_zone, zone)
    images, root = made.folder / "images", made.paths(name).root
    images.mkdir(exist_ok=True)
    create_site(root, name, cable.hub_url, [images], redis_url=_start_redis(made, name, zone), policy=policy, threads=1)
    code = invite_site(made.services, name, "operator:console").code
    done = made.site(name, "enroll", "--code", code)
    assert done.returncode == 0, done.stdout + done.stderr
    enrolled(name, root)
    for part in ("gate", "agent", "worker"):
        words = [*WORKER, str(root)] if part == "worker" else [*WARDROUND, "site", part, str(root)]
        more = {**variables.get(name, {}), **variables.get(f"{name} {part}", {})}
        made.start(f"{name} {part}", zone, words, **more)


def study_data(name: str, sites: int, rounds: int, **changes: Any) -> dict[str, Any]:
    """Return a study whose updates are charged and neither compressed nor judged; keyword arguments replace parts."""
    return {
        "name": name,
        "cohort": {"modality": ["DX"], "minimum_patients": 1},
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "convnet"},
        "training": {"local_steps": 10, "sampling_rate": 0.1},
        "rounds": rounds,
        "participants": {
            "minimum_sites": sites,
            "quorum": 1.0,
            "training_patients": sites * PATIENTS,
            "deadline_seconds": 3600,
        },
        "privacy": {"epsilon": 8.0, "delta": 1e-5},
        "transport": {"upload": []},
        "evaluation": {"noise_epsilon": None},
        **changes,
    }
