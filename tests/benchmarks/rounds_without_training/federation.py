"""A hub and hospitals as real processes on this machine, whose workers hand over random updates in place of training.

`wardround hub serve` and `wardround hub worker` with a Redis; for each hospital `wardround site gate`, `wardround site
agent`, a Redis and a Celery worker that differs from `wardround site worker` in its job alone (`job.py`). Folders, keys
and accounts are made by the functions behind `init`, `users add` and `invite`, in this process; sites enrol over HTTP.
"""

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import structlog

from compose.interruption import caught_signals
from compose.layout import DemoLayout
from compose.person import Person, is_healthy
from compose.ports import next_free_port
from compose.processes import Service, Supervisor
from compose.programs import DIRECT, Programs
from compose.redis_server import RedisServer, prepare_redis
from hub.auth.coordinator import add_person, invite_site
from hub.services import Services, open_services
from hub.settings import Settings, write_settings
from hub.storage import round_stores, stores
from hub.storage.migrate import upgrade
from protocol.signing import SigningKey
from protocol.study import StudySpec
from site_node.agent.hub_client import HubClient, connect
from site_node.enrolment import create_site, enroll_site
from site_node.settings import SiteSettings, load_settings
from tests.benchmarks.rounds_without_training.job_name import JOB, JOB_VARIABLE, PARAMETERS

ROOT = Path(__file__).parents[3]
PASSWORD = "a long enough password"
FIRST_PORT = 18500
WAIT_SECONDS = 1800.0
POLICY = (
    "approval: automatic\nnetworks: any\nmodalities: any\nminimum_patients: 1\nminimum_held_out_patients: 1\n"
    "maximum_update_megabytes: 16384\nlifetime_epsilon: 100\n"
)


@dataclass
class BenchmarkFederation:
    """What runs, and how it is reached."""

    layout: DemoLayout
    supervisor: Supervisor
    names: list[str]
    services: Services
    programs: Programs
    port: int = 0
    redis: dict[str, RedisServer] = field(default_factory=dict)

    @property
    def hub_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, study: StudySpec) -> float:
        """Propose a study, look after the processes until it has ended; return a round's seconds of processor time."""
        person = Person(self.hub_url, "researcher", PASSWORD)
        person.post("/v1/studies", content=study.canonical_bytes())
        person.close()
        until, warm = time.monotonic() + WAIT_SECONDS, None
        while True:
            with self.services.reading() as session:
                row = stores.study(session, study.digest)
                newest = round_stores.last_round(session, study.digest)
            if warm is None and newest is not None and newest.number > 1:
                warm = (newest.number, self._cpu_seconds())
            if row.ended_at is not None:
                break
            if time.monotonic() > until:
                raise SystemExit(f"{study.name}: no end in sight. See {self.layout.root / 'logs'}")
            self.supervisor.pause(0.2)
        if row.state != "completed":
            raise SystemExit(f"{study.name}: {row.state}: {row.reason}")
        if warm is None or warm[0] > study.rounds:
            return float("nan")
        return (self._cpu_seconds() - warm[1]) / (study.rounds + 1 - warm[0])

    def opened_at(self, study: StudySpec) -> list[float]:
        """Return when each training round was opened, and when the last one ended."""
        with self.services.reading() as session:
            rounds = [row for row in round_stores.rounds(session, study.digest) if row.number > 0]
        return [row.opened_at for row in rounds] + [rounds[-1].ended_at or 0.0]

    def hub_peaks_mb(self) -> dict[str, tuple[float, float]]:
        """Return the largest memory of each of the hub's processes: with what is shared in full, and in parts."""
        processes = {role: self.supervisor.pid(role) for role in ("hub api", "hub worker")}
        return {role: (peak_mb(pid), peak_mb(pid) - shared_with_others_mb(pid)) for role, pid in processes.items()}

    def newest_version(self, study: StudySpec) -> Path:
        """Return where the hub keeps the weights of a study's newest version."""
        with self.services.reading() as session:
            return self.services.blobs.path(stores.newest_version(session, study.digest).weights_digest)

    def _cpu_seconds(self) -> float:
        return sum(cpu_seconds(process.pid) for process in self.supervisor.processes())

    def point_agents_at(self, url: str) -> None:
        """Start the agents again with another address of the hub."""
        for name in self.names:
            path = self.layout.site(name) / "site.yaml"
            path.write_text(path.read_text().replace(load_settings(path.parent).hub_url, url))
            self.supervisor.replace(self.programs.site_process(name, "agent"))


def cpu_seconds(process_id: int) -> float:
    """Return the processor time of a process and all that it ever started."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(process_id)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


def peak_mb(process: int | None) -> float:
    """Return a process's largest resident memory so far, in MB of 10^6 bytes: libraries count in full."""
    return _entry_mb(Path(f"/proc/{process}/status"), "VmHWM:")


def shared_with_others_mb(process: int | None) -> float:
    """Return the part of a process's memory that other processes account for: libraries that they map too."""
    memory = Path(f"/proc/{process}/smaps_rollup")
    return _entry_mb(memory, "Rss:") - _entry_mb(memory, "Pss:")


def _entry_mb(path: Path, name: str) -> float:
    (line,) = [line for line in path.read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024 / 1e6


@contextmanager
def running_federation(folder: Path, sites: int, parameters: int, job: str = JOB) -> Iterator[BenchmarkFederation]:
    """Bring a federation up and end all its processes afterwards."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    os.environ.update({**DIRECT, PARAMETERS: str(parameters), JOB_VARIABLE: job, "PYTHONPATH": str(ROOT)})
    layout = DemoLayout(folder)
    with caught_signals() as interruption:
        supervisor = Supervisor(interruption)
        try:
            with supervisor.nursery(layout.log("nursery")):
                federation = _prepared(layout, supervisor, [f"site-{number:03d}" for number in range(sites)])
                _start(federation)
            yield federation
        finally:
            supervisor.stop()


def _prepared(layout: DemoLayout, supervisor: Supervisor, names: list[str]) -> BenchmarkFederation:
    layout.hub.mkdir(parents=True)
    settings = Settings(dir=layout.hub)
    write_settings(settings)
    services = open_services(settings, lambda *_: None)
    federation = BenchmarkFederation(layout, supervisor, names, services, Programs(layout, 1))
    upgrade(services.database)
    taken: set[int] = set()
    for owner in ("hub", *names):
        folder = layout.hub_redis if owner == "hub" else layout.site(owner) / "redis"
        federation.redis[owner] = prepare_redis(folder, f"{owner} redis", layout.log(f"{owner} redis"), taken)
        supervisor.start(federation.redis[owner].service)
        if owner == "hub":  # what takes longest to start is started first
            _start_hub(federation)
    return federation


def _start_hub(federation: BenchmarkFederation) -> None:
    redis_url, programs = federation.redis["hub"].url, federation.programs
    federation.port = next_free_port(FIRST_PORT)
    federation.supervisor.start(programs.hub_api(federation.port, redis_url))
    federation.supervisor.start(programs.hub_worker(redis_url))


def _start(federation: BenchmarkFederation) -> None:
    add_person(federation.services, "researcher", "researcher", PASSWORD, "operator:console")
    settings = [_made_site(federation, name) for name in federation.names]
    codes = [invite_site(federation.services, one.name, "operator:console").code for one in settings]
    while not is_healthy(federation.hub_url):
        federation.supervisor.pause(0.05)
    with ThreadPoolExecutor(len(settings)) as administrators:
        for one, _ in zip(settings, administrators.map(_enrol, settings, codes), strict=True):
            for part in ("gate", "agent"):
                federation.supervisor.start(federation.programs.site_process(one.name, part))
            federation.supervisor.start(_worker(federation, one.name))


def _made_site(federation: BenchmarkFederation, name: str) -> SiteSettings:
    images = federation.layout.root / "images"
    images.mkdir(exist_ok=True)
    url = federation.redis[name].url
    return create_site(
        federation.layout.site(name), name, federation.hub_url, [images], redis_url=url, policy=POLICY, threads=1
    )


def _enrol(settings: SiteSettings, code: str) -> None:
    with connect(settings.hub_url) as http:
        client = HubClient(http, settings.name, SigningKey.load_or_create(settings.paths.transport_key))
        enroll_site(settings, client, code)


def _worker(federation: BenchmarkFederation, name: str) -> Service:
    like = federation.programs.site_process(name, "worker")
    module = "tests.benchmarks.rounds_without_training.worker"
    command = (sys.executable, "-m", module, str(federation.layout.site(name)))
    return Service(like.role, command, like.log, like.environment, born=True)


def age_seconds() -> float:
    """Return how long ago this process was started."""
    return time.time() - psutil.Process().create_time()
