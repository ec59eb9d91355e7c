"""What buffered rounds win where one of four hospitals is ten times slower than the others, as JSON.

    python -m tests.benchmarks.uneven --data DATA --rounds 6 --seeds 3

DATA holds folders of hospitals (B to E) with DICOM files and labels.csv; the slow one (`--slow`) is by default the one
with the most patients. Real hub, gates, agents and training in one process; each hospital has a thread
of its own, and its worker takes so long (`--train-seconds`, `--evaluate-seconds`; the slow one ten times that) that
computing is the smaller part of it. The synchronous run waits for all four in every round. The buffered run makes a
version of every three updates, until it has made `--versions` times as many.

Prints for each seed the synchronous run's last AUC (pooled validation patients) and the seconds from its first task to
that version, and the seconds after which the buffered run had made a version of at least that AUC; and the mean of
their quotients. The exit status is 1 if a buffered run never got there, or took more than half the time.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from compose.plain_logs import log_plainly
from compose.simulated_hub import SimulatedHub
from compose.simulated_site import SimulatedSite
from protocol.study import StudySpec, parse_study
from site_node.orders import read_order
from site_node.settings import SiteSettings
from site_node.training.job import run_order

HERE = Path(__file__).parent
STUDY = HERE / "studies" / "uneven.yaml"
SITES = ("b", "c", "d", "e")
SLOWNESS = 10.0
BUFFER = 3
LARGEST_QUOTIENT = 0.5
PAUSE_SECONDS = 0.02
LONGEST_RUN_SECONDS = 1800.0
_ONE_AT_A_TIME = threading.Lock()
"""Computing is done by one hospital at a time: each would have machines of its own."""


@dataclass(frozen=True)
class Setting:
    """What both runs share."""

    data: Path
    slow: str
    seconds: dict[str, float]
    seed: int


@dataclass(frozen=True)
class Version:
    """A version of a run: when it was made, in seconds after the study's first training task, and how good it is."""

    number: int
    seconds: float
    auc: float


def work_of(name: str, setting: Setting) -> Callable[[SiteSettings, str], None]:
    """Return a hospital's worker, which takes as long as it is said to."""
    slowness = SLOWNESS if name == setting.slow else 1.0

    def work(settings: SiteSettings, task_id: str) -> None:
        order = read_order(settings.paths, task_id)
        begun = time.monotonic()
        with _ONE_AT_A_TIME:
            run_order(settings, task_id)
        wanted = setting.seconds.get(order.kind, 0.0) * slowness if order else 0.0
        time.sleep(max(0.0, begun + wanted - time.monotonic()))

    return work


@contextmanager
def threads_of(sites: Sequence[SimulatedSite]) -> Iterator[None]:
    """Let every hospital act in a thread of its own."""
    stop = threading.Event()

    def act(site: SimulatedSite) -> None:
        while not stop.is_set():
            if site.step() == 0:
                stop.wait(PAUSE_SECONDS)

    threads = [threading.Thread(target=act, args=(site,), name=site.name) for site in sites]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def run(study: StudySpec, setting: Setting, folder: Path) -> list[Version]:
    """Run a study to its end and return its versions."""
    with SimulatedHub(folder / "hub") as hub:
        sites = [
            SimulatedSite(
                name, setting.data / name.upper(), folder / name, hub, setting.seed, 1, work_of(name, setting)
            )
            for name in SITES
        ]
        for site in sites:
            site.index()
        hub.propose(study)
        get = hub.researcher.get
        ends_at = time.monotonic() + LONGEST_RUN_SECONDS
        with threads_of(sites):
            while get(f"/v1/studies/{study.digest}")["state"] in ("proposed", "running"):
                if time.monotonic() > ends_at:
                    raise SystemExit("A run does not end.")
                if hub.step() == 0:
                    time.sleep(PAUSE_SECONDS)
        return versions_of(get(f"/v1/studies/{study.digest}/rounds"), get(f"/v1/studies/{study.digest}/versions"))


def versions_of(rounds: list[dict[str, Any]], versions: list[dict[str, Any]]) -> list[Version]:
    """Return the trained versions that were judged. Pure."""
    began = next(entry["opened_at"] for entry in rounds if entry["number"] == 1)
    made = {version["number"]: version["created_at"] - began for version in versions}
    return [
        Version(entry["number"], made[entry["number"]], entry["metrics"]["auc"])
        for entry in rounds
        if entry["number"] in made and entry["number"] > 0 and entry["metrics"]
    ]


def compare(setting: Setting, rounds: int, times: int) -> dict[str, Any]:
    """Run both and say when buffered rounds were as good."""
    data = yaml.safe_load(STUDY.read_text(encoding="utf-8")) | {"seed": setting.seed}
    pace = {"mode": "buffered", "buffer": BUFFER, "maximum_staleness": 100}
    synchronous = parse_study(data | {"rounds": rounds})
    buffered = parse_study(data | {"name": "uneven-buffered", "rounds": times * rounds, "pace": pace})
    with tempfile.TemporaryDirectory() as folder:
        waited = run(synchronous, setting, Path(folder) / "synchronous")
        flowed = run(buffered, setting, Path(folder) / "buffered")
    goal = waited[-1]
    reached = next((version for version in flowed if version.auc >= goal.auc), None)
    return {
        "seed": setting.seed,
        "synchronous": {"versions": goal.number, "auc": round(goal.auc, 4), "seconds": round(goal.seconds, 1)},
        "buffered": None
        if reached is None
        else {"versions": reached.number, "auc": round(reached.auc, 4), "seconds": round(reached.seconds, 1)},
        "best_buffered_auc": round(max(version.auc for version in flowed), 4),
        "quotient": None if reached is None else round(reached.seconds / goal.seconds, 3),
    }


def main() -> None:
    """Read the arguments, measure, print JSON; exit status 1 if the goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--slow", default="b", choices=SITES)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--versions", type=int, default=3, help="buffered versions for each synchronous one")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-seconds", type=float, default=2.0)
    parser.add_argument("--evaluate-seconds", type=float, default=0.4)
    arguments = parser.parse_args()
    log_plainly()
    seconds = {"train": arguments.train_seconds, "evaluate": arguments.evaluate_seconds}
    runs = [
        compare(Setting(arguments.data, arguments.slow, seconds, seed), arguments.rounds, arguments.versions)
        for seed in range(arguments.seeds)
    ]
    quotients = [entry["quotient"] for entry in runs]
    met = all(quotient is not None and quotient <= LARGEST_QUOTIENT for quotient in quotients)
    known = [quotient for quotient in quotients if quotient is not None]
    result = {"runs": runs, "mean_quotient": round(mean(known), 3) if known else None, "met": met}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    raise SystemExit(not met)


if __name__ == "__main__":
    main()
