"""What masks cost: plain float32 rounds and masked rounds of the same federation, over real HTTP, as JSON.

    python tests/benchmarks/secure_aggregation.py --sites 8 --params 7000000 [--lost 2] [--rounds 3]

The hub is `wardround hub serve`; each hospital is a process with its real gate and agent. Training is left out: workers
hand over random updates at once. A round's seconds are the hub's own, from its opening to the commit of its version;
the median of the rounds is printed. `upload_ratio` counts all bytes that the surviving sites sent in masked rounds,
over their updates as float32. `exact` says that every masked version equals, to the bit, what the sum of the
survivors' own rounded integers gives. The `--lost` sites fail in each masked round after their masks are in the
others' vectors, and say so; one that falls silent costs the round's deadline besides.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import httpx
import numpy as np
import structlog

from compose.person import Person
from hub.auth.coordinator import add_person, invite_site
from hub.rounds.transitions import TaskState
from hub.services import Services, open_services
from hub.settings import Settings, write_settings
from hub.storage import round_stores, stores
from hub.storage.migrate import upgrade
from protocol.manifest import manifest_of
from protocol.messages import Reason
from protocol.secure_aggregation.fixed_point import dequantise
from protocol.secure_aggregation.vector import vector_terms
from protocol.study import StudySpec
from protocol.tensors import Weights, decode_weights, flatten
from site_node.candidate import Candidate, write_candidate
from site_node.governance.masking_records import masked_round, masking_mail
from site_node.governance.records import open_records
from site_node.orders import read_order
from site_node.privacy.noise import NoiseSource
from site_node.update.quantised import quantised
from tests.fakes.handing_site import ROUNDING_KEY, HandingSite, masked_study, random_weights

ROOT = Path(__file__).parents[2]
SCALE = 0.02
WAIT_SECONDS = 1800.0
PASSWORD = "a long enough password"
DIRECT = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Run:
    """What is measured, and where it lies."""

    folder: Path
    url: str
    sites: int
    params: int
    lost: int
    rounds: int

    def study(self, name: str) -> StudySpec:
        """Return the plain or the masked study."""
        terms: dict[str, Any] = {"name": name, "rounds": self.rounds}
        terms["participants"] = {"minimum_sites": self.sites, "quorum": 0.01, "deadline_seconds": WAIT_SECONDS}
        if name == "plain":
            terms["secure_aggregation"] = {"method": "none"}
        return masked_study(self.sites, **terms)


def site_name(number: int) -> str:
    return f"site-{number:03d}"


def patients_at(number: int) -> int:
    return 20 + 7 * number


def base_of(params: int) -> Weights:
    return random_weights(0, params, SCALE)


def update_of(number: int, params: int) -> Weights:
    return random_weights(1 + number, params, SCALE)


def hospital(run: Run, number: int, code: str, ready: Any, go: Any, end: Any) -> None:
    """Be one hospital until told to end: a gate and an agent at work, as their own processes would be."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    os.environ.update(DIRECT)
    base, update = base_of(run.params), update_of(number, run.params)
    trained = {"w": base["w"] + update["w"]}
    folder = run.folder / "sites" / site_name(number)
    with httpx.Client(base_url=run.url, trust_env=False, timeout=60.0) as http:
        site = HandingSite.make(folder, http, code, base, patients_at(number), trained=lambda _: trained)
        if number >= run.sites - run.lost:
            site.agent._run_job = lambda task_id: _work_and_be_lost(site, task_id)
        ready.put((number, site.identity.text))
        keys = go.get()
        (site.settings.paths.root / "peers.yaml").write_text(
            "".join(f"{name}: {key}\n" for name, key in keys.items() if name != site.name)
        )
        stop = threading.Event()
        threads = [threading.Thread(target=part.run, args=(stop,), daemon=True) for part in (site.gate, site.agent)]
        for thread in threads:
            thread.start()
        end.wait()
        stop.set()


def _work_and_be_lost(site: HandingSite, task_id: str) -> None:
    """Do what a worker does, but fail in masked rounds once the peers' shares have come."""
    order = read_order(site.settings.paths, task_id)
    if order is None or order.kind != "train" or order.study["secure_aggregation"]["method"] == "none":
        site.work(task_id)
        return

    def fail() -> None:
        database = open_records(site.settings.paths)
        while True:
            known = masked_round(database, order.study_digest, order.round)
            if known is not None and masking_mail(database, known, "delivery") is not None:
                break
            time.sleep(0.02)
        candidate = Candidate(task_id=task_id, task_digest=order.task_digest, kind="failure", reason=Reason.DISK_FULL)
        write_candidate(site.settings.paths, candidate)

    threading.Thread(target=fail, daemon=True).start()


@contextmanager
def served_hub(folder: Path) -> Iterator[str]:
    """Serve a hub from a process of its own and give its address."""
    command = [sys.executable, "-m", "compose.cli", "hub", "serve", str(folder), "--port", "18440"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log, env={**os.environ, **DIRECT})
    try:
        address = folder / "hub.address"
        while not address.exists():
            if process.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.05)
        yield json.loads(address.read_text())["url"]
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def hospitals(run: Run, services: Services) -> Iterator[None]:
    """Run all hospitals, enrolled and with each other's keys pinned."""
    context = multiprocessing.get_context("spawn")
    ready, end = context.Queue(), context.Event()
    gates = [context.Queue() for _ in range(run.sites)]
    codes = [invite_site(services, site_name(n), "operator:console").code for n in range(run.sites)]
    processes = [
        context.Process(target=hospital, args=(run, n, codes[n], ready, gates[n], end), daemon=True)
        for n in range(run.sites)
    ]
    for process in processes:
        process.start()
    try:
        keys = {site_name(number): key for number, key in (ready.get(timeout=300) for _ in processes)}
        for gate in gates:
            gate.put(keys)
        yield
    finally:
        end.set()
        for process in processes:
            process.join(10)
            process.kill()


def completed(services: Services, person: Person, study: StudySpec) -> list[float]:
    """Propose a study, wait for its end, and return its rounds' seconds."""
    person.post("/v1/studies", content=study.canonical_bytes())
    began = time.monotonic()
    while True:
        with services.reading() as session:
            row = stores.study(session, study.digest)
            if row.ended_at is not None:
                break
        if time.monotonic() - began > WAIT_SECONDS:
            raise SystemExit(f"{study.name}: no end in sight")
        time.sleep(0.2)
    if row.state != "completed":
        raise SystemExit(f"{study.name}: {row.state}: {row.reason}")
    with services.reading() as session:
        rounds = [found for found in round_stores.rounds(session, study.digest) if found.number > 0]
        return [(found.ended_at or 0.0) - found.opened_at for found in rounds]


def masked_facts(run: Run, services: Services, study: StudySpec) -> tuple[float, bool]:
    """Return upload ratio and exactness of all masked rounds."""
    terms, sent, exact = vector_terms(study, run.params), [], True
    with services.reading() as session:
        for number in range(1, run.rounds + 1):
            tasks = round_stores.tasks_of_round(session, study.digest, number, "train")
            there = [task for task in tasks if task.state == TaskState.ACCEPTED]
            exact &= len(there) == run.sites - run.lost
            sent += [task.bytes_up / (4 * run.params) for task in there]
            total, weights = np.zeros(run.params, np.int64), 0
            for task in there:
                place = int(task.site.removeprefix("site-"))
                draws = NoiseSource(ROUNDING_KEY, task.digest, task.site).rounding.halves
                base = base_of(run.params)["w"]
                difference = {"w": (base + update_of(place, run.params)["w"]) - base}
                manifest = manifest_of(difference)
                words, _ = quantised(study, flatten(difference, manifest), manifest, number, patients_at(place), draws)
                total += terms.ring.decode(terms.ring.from_bytes(words))
                weights += terms.weight_of(patients_at(place))
            before, after = (_version(services, session, study, n) for n in (number - 1, number))
            mean = dequantise(total, terms.unit, terms.divisor(weights)).astype(np.float64)
            exact &= bool(np.array_equal(after, (before.astype(np.float64) + mean).astype(np.float32)))
    return sum(sent) / len(sent), exact


def _version(services: Services, session: Any, study: StudySpec, number: int) -> Any:
    digest = stores.version(session, study.digest, number).weights_digest
    return decode_weights(services.blobs.path(digest))["w"]


def measure(sites: int, params: int, lost: int, rounds: int) -> dict[str, Any]:
    """Run both studies once and return the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "hub").mkdir()
        settings = Settings(dir=folder / "hub")
        write_settings(settings)
        services = open_services(settings, lambda *_: None)
        upgrade(services.database)
        add_person(services, "researcher", "researcher", PASSWORD, "operator:console")
        with served_hub(folder / "hub") as url:
            run = Run(folder, url, sites, params, lost, rounds)
            with hospitals(run, services):
                person = Person(url, "researcher", PASSWORD)
                plain = completed(services, person, run.study("plain"))
                masked = completed(services, person, run.study("masked"))
            ratio, exact = masked_facts(run, services, run.study("masked"))
    return {
        "plain_seconds": round(median(plain), 3),
        "masked_seconds": round(median(masked), 3),
        "upload_ratio": round(ratio, 4),
        "exact": exact,
        "sites": sites,
        "lost": lost,
        "params": params,
        "rounds": {"plain": [round(s, 3) for s in plain], "masked": [round(s, 3) for s in masked]},
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--params", type=int, default=7_000_000)
    parser.add_argument("--lost", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    figures = measure(options.sites, options.params, options.lost, options.rounds)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
