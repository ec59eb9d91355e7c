"""The same rounds as `wardround simulate` runs them, in this one process; only the training is left out.

What stands in for training, an addition of random values, is timed and told apart: it is no part of a round.
"""

import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import structlog
from rich.console import Console

from compose.simulated_hub import SimulatedHub
from compose.simulated_site import SimulatedSite
from compose.simulation import Driver
from hub.memory import keep_freed_memory
from tests.benchmarks.rounds_without_training import job
from tests.benchmarks.rounds_without_training.studies import plain_study

WINDOW_VALUES = 1 << 18


@dataclass
class Timed:
    """Rounds' seconds on the clock and the processor's, and of both what the stand-in for training took."""

    rounds: list[float] = field(default_factory=list)
    stand_in: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    stand_in_cpu_seconds: float = 0.0


def timed_rounds(folder: Path, sites: int, rounds: int) -> Timed:
    """Run a study of so many rounds and one before them, which is not timed."""
    keep_freed_memory()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    study = plain_study("in-process", sites, rounds + 1)
    with SimulatedHub(folder / "hub") as hub:
        images = folder / "images"
        images.mkdir()
        all_sites = [
            SimulatedSite(name, images, folder / "sites" / name, hub, 0, 1, job.hand_over)
            for name in (f"site-{number:03d}" for number in range(sites))
        ]
        hub.propose(study)
        said = _Clock()
        Driver(hub, all_sites, study.digest, Console(file=said)).until_ended()
        found = [row for row in hub.researcher.get(f"/v1/studies/{study.digest}/rounds") if row["number"] > 0]
    cpu = time.process_time() - said.warm_at[0]
    opened = [row["opened_at"] for row in found] + [found[-1]["ended_at"]]
    seconds = [after - before for before, after in pairwise(opened[1:])]
    stood_in = [sum(took for number, took, _ in job.STOOD_IN if number == row["number"]) for row in found[1:]]
    stood_in_cpu = sum(cpu for number, _, cpu in job.STOOD_IN if number > 1)
    return Timed(seconds, stood_in, cpu, stood_in_cpu)


def floor_of_one_process(sites: int, parameters: int) -> tuple[float, float]:
    """Return the least seconds, on the clock and the processor's, of one digest of each update and one sum of them."""
    updates = [np.random.default_rng(site).standard_normal(parameters, np.float32) for site in range(sites)]
    return min((_took(lambda: _digest_and_add(updates)) for _ in range(5)), key=lambda took: took[1])


def _digest_and_add(updates: list["np.ndarray[tuple[int], np.dtype[np.float32]]"]) -> None:
    for update in updates:
        hashlib.sha256(update.data.cast("B")).digest()
    for start in range(0, updates[0].size, WINDOW_VALUES):
        total = updates[0][start : start + WINDOW_VALUES].astype(np.float64)
        for update in updates[1:]:
            total += update[start : start + WINDOW_VALUES]


def _took(action: Callable[[], None]) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - began, time.process_time() - cpu


class _Clock(io.StringIO):
    """Notes the processor's time when the first round is said to be over."""

    def __init__(self) -> None:
        super().__init__()
        self.warm_at: list[float] = []

    def write(self, text: str, /) -> int:
        if not self.warm_at and "round 2: opened" in text:
            self.warm_at.append(time.process_time())
        return len(text)
