"""A hub under a thousand sites: PostgreSQL, Redis, two API processes, one worker; prints JSON.

    python tests/benchmarks/load.py --sites 10 100 1000 [--rounds 2] [--training-seconds 60]

Each site signs in, waits at its mailbox by long poll, approves, downloads each version, pauses between 0 and
`--training-seconds` in place of training (half of it for an approval or an evaluation), and uploads a small model;
keys, signatures, messages and transfers are real, gate and patients are left out. Where there are four cores or more
the hub's processes, PostgreSQL and Redis are held to two of them and the driver to the others.

`poll_p99_ms`: the time beside the wait that an empty poll took; `poll_p99_ms_after` the same by the mail before it.
`delivery_p99_ms`: from the first site's receipt of a round's task to each other site's, all of which are posted by
one commit: the crowd at a round's opening, at its worst. `cpu_ms_per_update` counts PostgreSQL and Redis too;
`hub_cores_taken_by_others` is the share of the hub's cores that processes took which are no part of this: what is
timed beside them is an upper bound. `lost_updates` counts those of sites x rounds that no version counted; `exact`
says that the final weights are the mean of what the sites sent.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import psutil

from compose.person import Person
from compose.redis_server import prepare_redis
from hub.auth.coordinator import add_person, enrol_site, invite_site
from hub.registry.lineage import read_lineage
from hub.services import Services, open_services
from hub.settings import Settings, write_settings
from hub.storage import stores
from hub.storage.migrate import upgrade
from protocol.study import StudySpec, parse_study
from protocol.tensors import decode_weights
from tests.benchmarks.load_of_many_sites.site import SCALE, LightSite, Timings
from tests.fakes.hospital import Hospital
from tests.fakes.postgresql import cluster, fresh_database

ROOT = Path(__file__).parents[2]
PASSWORD = "a long enough password"
PARAMS = 1000
HUB_CORES, API_PROCESSES = 2, 2
Processes = list[psutil.Process]
DIRECT = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "OMP_NUM_THREADS": "1"}


def study_of(sites: int, rounds: int) -> StudySpec:
    """Return a study that all sites must answer."""
    return parse_study(
        {
            "name": f"load-{sites}",
            "cohort": {"modality": ["DX"], "minimum_patients": 1},
            "label": {"classes": ["no", "yes"]},
            "network": {"name": "convnet"},
            "rounds": rounds,
            "strategy": {"weighting": "equal"},
            "participants": {"minimum_sites": sites, "quorum": 1.0},
            "privacy": {"epsilon": None},
            "transport": {"upload": []},
            # In clear: these hospitals make no masks, and under masks each of a thousand would send a thousand shares.
            "evaluation": {"splits": ["test"], "every": rounds, "sum_under_masks": False},
        }
    )


@contextmanager
def running(command: list[str], log: Path, cores: set[int]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process of the hub on the given cores."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env={**os.environ, **DIRECT})
    os.sched_setaffinity(process.pid, cores)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def hub(folder: Path, cores: set[int]) -> Iterator[tuple[Services, list[str], Processes, Processes]]:
    """Run a whole hub and give its services (for set-up and checks), its addresses, its programs and their stores."""
    with ExitStack() as stack:
        socket = stack.enter_context(cluster(synced=True))
        postgresql = psutil.Process(int((socket / "data" / "postmaster.pid").read_text().split()[0]))
        for process in _with_children([postgresql]):
            os.sched_setaffinity(process.pid, cores)
        redis = prepare_redis(folder / "redis", "redis", folder / "redis.log")
        keeper = stack.enter_context(running(list(redis.service.command), folder / "redis.log", cores))
        settings = Settings(dir=folder / "hub", database_url=fresh_database(socket), redis_url=redis.url)
        settings.dir.mkdir()
        write_settings(settings)
        services = open_services(settings, lambda *_: None)
        upgrade(services.database)
        started, urls = [], []
        program = [sys.executable, "-m", "compose.cli", "hub"]
        for number in range(API_PROCESSES):
            (settings.dir / "hub.address").unlink(missing_ok=True)
            log = folder / f"api-{number}.log"
            serve = [*program, "serve", str(settings.dir), "--port", str(18600 + 10 * number)]
            started.append(stack.enter_context(running(serve, log, cores)))
            urls.append(_address(settings.dir / "hub.address", started[-1], log))
        worker = running([*program, "worker", str(settings.dir)], folder / "worker.log", cores)
        started.append(stack.enter_context(worker))
        try:
            programs = [psutil.Process(process.pid) for process in started]
            yield services, urls, programs, [postgresql, psutil.Process(keeper.pid)]
        except BaseException:
            for log in folder.glob("*.log"):
                sys.stderr.write(f"{log.name}: ...{log.read_text()[-3000:]}\n")
            raise
        services.waker.close()
        services.database.close()


def _address(path: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    while not path.exists():
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.05)
    return str(json.loads(path.read_text())["url"])


async def drive(services: Services, urls: list[str], study: StudySpec, sites: int, training: float) -> Timings:
    """Enrol the sites, let them take part until the study is closed, and return what was timed."""
    timings, all_sites = Timings(), []
    for number in range(1, sites + 1):
        hospital = Hospital(f"site-{number:04d}", time.time)
        code = invite_site(services, hospital.name, "operator:console").code
        enrol_site(services, hospital.enrolment(code))
        all_sites.append(LightSite(number, hospital, urls[number % len(urls)], PARAMS, training, timings))
    person = Person(urls[0], "researcher", PASSWORD)
    running_sites = [asyncio.create_task(site.run()) for site in all_sites]
    watching = asyncio.create_task(timings.watch_own_lag())
    while not all(site.waits for site in all_sites):
        await asyncio.sleep(0.5)
    began = time.perf_counter()
    await asyncio.to_thread(lambda: person.post("/v1/studies", content=study.canonical_bytes()))
    timings.requests["propose"] = [time.perf_counter() - began]
    await asyncio.gather(*running_sites)
    watching.cancel()
    person.close()
    return timings


def facts_of(services: Services, study: StudySpec, sites: int) -> dict[str, Any]:
    """Return what the database says of lost updates and of the mean."""
    counted = 0
    with services.reading() as session:
        row = stores.study(session, study.digest)
        versions = [version for version in stores.versions(session, study.digest) if version.number > 0]
        for version in versions:
            counted += len(read_lineage(version.lineage)["participants"])
        final = decode_weights(services.blobs.path(versions[-1].weights_digest))["w"]
    mean = len(versions) * SCALE * (sites + 1) / 2
    return {
        "state": row.state,
        "lost_updates": sites * study.rounds - counted,
        "exact": bool(np.allclose(final, mean, rtol=1e-5)),
    }


def measure(sites: int, rounds: int, training: float) -> dict[str, Any]:
    """Run one study with so many sites and return its figures."""
    every = sorted(os.sched_getaffinity(0))
    cores = set(every[:HUB_CORES])
    drivers = every[HUB_CORES:] or every
    os.sched_setaffinity(0, set(drivers))
    study = study_of(sites, rounds)
    try:
        with tempfile.TemporaryDirectory() as name, hub(Path(name), cores) as (services, urls, programs, kept):
            add_person(services, "researcher", "researcher", PASSWORD, "operator:console")
            began, idle, busy = time.monotonic(), _cpu_seconds([*programs, *kept]), _busy_seconds(cores)
            stores_idle = _cpu_seconds(kept)
            timings = asyncio.run(drive(services, urls, study, sites, training))
            seconds = time.monotonic() - began
            own, busy = _cpu_seconds([*programs, *kept]) - idle, _busy_seconds(cores) - busy
            of_stores = _cpu_seconds(kept) - stores_idle
            memory = sum(process.memory_info().rss for process in programs) / 1e6
            facts = facts_of(services, study, sites)
    finally:
        os.sched_setaffinity(0, set(every))
    tasks = {kind: times for kind, times in timings.arrivals.items() if kind.startswith("train")}
    polls = [seconds for _, seconds in timings.empty_polls]
    spreads = [moment - min(times) for times in tasks.values() for moment in times]
    return {
        "sites": sites,
        **facts,
        "polls": len(timings.empty_polls),
        "poll_p50_ms": _percentile(polls, 50),
        "poll_p99_ms": _percentile(polls, 99),
        "poll_p99_ms_after": {kind: _percentile(times, 99) for kind, times in timings.polls_by_phase().items()},
        "delivery_p50_ms": _percentile(spreads, 50),
        "delivery_p99_ms": _percentile(spreads, 99),
        "driver_lag_p99_ms": _percentile(timings.own_lags, 99),
        "requests_p99_ms": {what: _percentile(times, 99) for what, times in sorted(timings.requests.items())},
        "seconds": round(seconds, 1),
        "hub_cpu_seconds": round(own - of_stores, 1),
        "stores_cpu_seconds": round(of_stores, 1),
        "cpu_ms_per_update": round(1000 * own / (sites * rounds), 1),
        "hub_cores_busy": round(own / seconds / len(cores), 2),
        "hub_cores_taken_by_others": round(max(0.0, busy - own) / seconds / len(cores), 2),
        "hub_mb": round(memory),
        "hub_cores": sorted(cores),
        "driver_cores": drivers,
        "load_average": [round(value, 1) for value in os.getloadavg()],
    }


def _with_children(processes: Processes) -> Processes:
    return [one for process in processes for one in (process, *process.children(recursive=True))]


def _cpu_seconds(processes: Processes) -> float:
    return float(sum(sum(process.cpu_times()[:2]) for process in _with_children(processes)))


def _busy_seconds(cores: set[int]) -> float:
    """Return how long these cores have worked for anybody."""
    times = [psutil.cpu_times(percpu=True)[core] for core in cores]
    return float(sum(one.user + one.nice + one.system + one.irq + one.softirq for one in times))


def _percentile(seconds: list[float], rank: int) -> float | None:
    return round(1000 * float(np.percentile(seconds, rank)), 1) if seconds else None


def main() -> None:
    """Print the figures, one line of JSON for each number of sites."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--sites", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--training-seconds", type=float, default=60.0)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for sites in options.sites:
        sys.stdout.write(json.dumps(measure(sites, options.rounds, options.training_seconds)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
