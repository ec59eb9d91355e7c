"""What a round costs besides training: real hub and site processes over HTTP, beside the floor of the machine, as JSON.

    python tests/benchmarks/overhead.py --sites 8 --params 7000000 [--rounds 8] [--in-process]

Everything is real but the training: the hub's API and Celery worker, and for each hospital gate, agent and Celery
worker, with ledgers charged, signatures, synced blobs and audit (`rounds_without_training/federation.py`). In place of
training the worker adds random values to the base; reading the base, the difference, its checks and digest are real.

    seconds_per_round   median time from one round's opening to the next one's, after a warm-up round
    floor_seconds       median of the same bytes moved, digested, synced and added by bare processes, measured
                        right after the rounds and once more at the end (`rounds_without_training/floor.py`)
    hub_peak_mb         the largest memory of API and worker together; a library that n processes map counts 1/n to each
                        (peak RSS, less RSS minus PSS at the end); `hub_peak_rss_mb` counts it in full to both
    wire_ratio          TCP payload both ways per site and round over the model's bytes, counted by a relay in a second
                        study that is not timed; polls, messages and that study's start are in it, version 0 is not
    cpu_seconds_per_round  processor time of all processes for a round: what other work on the machine disturbs least
    startup_seconds     from the start of this command to the opening of round 1

With `--in-process` the floor is one digest of each update and one sum of them; `stand_in_seconds_per_round`, what the
addition of random values took, is not in the other figures.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.rounds_without_training.federation import (
    BenchmarkFederation,
    age_seconds,
    peak_mb,
    running_federation,
)
from tests.benchmarks.rounds_without_training.floor import floor_seconds
from tests.benchmarks.rounds_without_training.job_name import PARAMETERS
from tests.benchmarks.rounds_without_training.studies import plain_study
from tests.benchmarks.rounds_without_training.wire import counting_relay

WIRE_ROUNDS = 2
FLOOR_ROUNDS = 4


def measure(options: argparse.Namespace, began_at: float) -> dict[str, Any]:
    """Run everything once and return the figures."""
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="overhead-") as name:
        folder = Path(name).resolve()
        study = plain_study("timed", options.sites, options.rounds + 1)
        with running_federation(folder / "federation", options.sites, options.params) as federation:
            cpu = federation.run(study)
            opened = federation.opened_at(study)
            peaks = federation.hub_peaks_mb()
            floor = floor_seconds(folder / "floor", options.sites, options.params, FLOOR_ROUNDS)[1:]
            wire = _wire_ratio(federation, options.sites, options.params) if options.wire else None
            floor += floor_seconds(folder / "floor-after", options.sites, options.params, FLOOR_ROUNDS)[1:]
        seconds = [after - before for before, after in pairwise(opened[1:])]
    return {
        "seconds_per_round": round(median(seconds), 3),
        "floor_seconds": round(median(floor), 3),
        "hub_peak_mb": round(sum(part for _, part in peaks.values()), 1),
        "wire_ratio": wire and round(wire, 4),
        "startup_seconds": round(opened[0] - began_at, 2),
        "cpu_seconds_per_round": round(cpu, 3),
        "over_floor": round(median(seconds) / median(floor), 2),
        "sites": options.sites,
        "params": options.params,
        "rounds": [round(one, 3) for one in seconds],
        "floor_rounds": [round(one, 3) for one in floor],
        "hub_peak_rss_mb": {role: round(whole, 1) for role, (whole, _) in peaks.items()},
        "load_average": os.getloadavg()[0],
        "cores": len(os.sched_getaffinity(0)),
    }


def measure_in_process(options: argparse.Namespace) -> dict[str, Any]:
    """Run the same rounds in this process, as `wardround simulate` does."""
    os.environ[PARAMETERS] = str(options.params)
    from tests.benchmarks.rounds_without_training.in_process import floor_of_one_process, timed_rounds

    with tempfile.TemporaryDirectory(dir=options.dir, prefix="overhead-") as name:
        timed = timed_rounds(Path(name).resolve(), options.sites, options.rounds)
    seconds = [whole - part for whole, part in zip(timed.rounds, timed.stand_in, strict=True)]
    peak = peak_mb(os.getpid())
    floor, floor_cpu = floor_of_one_process(options.sites, options.params)
    return {
        "seconds_per_round": round(median(seconds), 3),
        "floor_seconds": round(floor, 3),
        "cpu_seconds_per_round": round((timed.cpu_seconds - timed.stand_in_cpu_seconds) / options.rounds, 3),
        "floor_cpu_seconds": round(floor_cpu, 3),
        "stand_in_seconds_per_round": round(median(timed.stand_in), 3),
        "peak_mb": round(peak, 1),
        "sites": options.sites,
        "params": options.params,
        "rounds": [round(one, 3) for one in seconds],
        "load_average": os.getloadavg()[0],
    }


def _wire_ratio(federation: BenchmarkFederation, sites: int, params: int) -> float:
    study = plain_study("counted", sites, WIRE_ROUNDS)
    with counting_relay(federation.layout.root, federation.port) as (port, count):
        federation.point_agents_at(f"http://127.0.0.1:{port}")
        federation.run(study)
        version_zero = 4 * params
        return (count() - version_zero) / (WIRE_ROUNDS * sites * 4 * params)


def main() -> None:
    """Print the figures."""
    began_at = time.time() - age_seconds()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--params", type=int, default=7_000_000)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--dir", type=Path, default=None, help="where the run's files lie for its time")
    parser.add_argument("--no-wire", dest="wire", action="store_false", help="leave the study out that counts bytes")
    parser.add_argument("--in-process", action="store_true", help="in one process, as `wardround simulate` runs")
    options = parser.parse_args()
    figures = measure_in_process(options) if options.in_process else measure(options, began_at)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
