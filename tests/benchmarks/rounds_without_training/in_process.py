"""The same rounds as `wardround simulate` runs them, in this one process; only the training is left out."""

import io
import time
from pathlib import Path

import structlog
from rich.console import Console

from compose.simulated_hub import SimulatedHub
from compose.simulated_site import SimulatedSite
from compose.simulation import Driver
from tests.benchmarks.rounds_without_training.job import hand_over
from tests.benchmarks.rounds_without_training.studies import plain_study


def timed_rounds(folder: Path, sites: int, rounds: int) -> tuple[list[float], float]:
    """Run a study; return when each training round was opened and the last one ended, and the processor's seconds.

    The processor's seconds are those of all rounds but the first.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    study = plain_study("in-process", sites, rounds)
    with SimulatedHub(folder / "hub") as hub:
        images = folder / "images"
        images.mkdir()
        all_sites = [
            SimulatedSite(name, images, folder / "sites" / name, hub, 0, 1, hand_over)
            for name in (f"site-{number:03d}" for number in range(sites))
        ]
        hub.propose(study)
        said = _Clock()
        Driver(hub, all_sites, study.digest, Console(file=said)).until_ended()
        found = [row for row in hub.researcher.get(f"/v1/studies/{study.digest}/rounds") if row["number"] > 0]
    return [row["opened_at"] for row in found] + [found[-1]["ended_at"]], time.process_time() - said.warm_at


class _Clock(io.StringIO):
    """Notes the processor's time when the first round is said to be over."""

    warm_at = 0.0

    def write(self, text: str, /) -> int:
        if not self.warm_at and "round 2: opened" in text:
            self.warm_at = time.process_time()
        return len(text)
