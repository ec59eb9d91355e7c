"""The share of a training step that is not the GPU's own work, from DICOM to update, as JSON.

    python -m tests.benchmarks.gpu_step [--device cuda] [--network resnet18] [--size 224] [--epsilon 8] [--steps 20]
    python -m tests.benchmarks.gpu_step --device cpu --network convnet --size 32 --patients 60 --steps 4

Makes a hospital up (`--patients` radiographs of `--pixels` x `--pixels` as DICOM), and takes its way to an update with
the site's own functions, each phase timed: `index` (headers), `read` (decode), `transform` (prepare) once for a cohort,
because prepared images stay on the site's disk; `train` (a round's steps: draw, move, augment, gradients, noise,
optimiser) and `update` (difference, checks, encoding) in each round. A round of few steps before it warms up.

On a GPU the same steps are taken again under torch's profiler, which tells when a kernel or copy was at work:

- `step_seconds`, `gpu_seconds_of_a_step`: wall time without the profiler, and the union of the GPU's working times;
- `share_of_a_step`: 1 - GPU's seconds / wall seconds, of `train` alone;
- `share_of_a_later_round`, `share_of_the_first_round`: the same of train and update, and of all phases.

On the processor these are null, and the phases are printed. Exit status 2 if a GPU is asked for and there is none.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

from protocol.study import StudySpec, parse_study
from protocol.tensors import Weights
from site_node.cohort.cohort import Cohort, ImageRef, build_cohort
from site_node.cohort.index import index_folder
from site_node.dicom.pixels import read_pixels
from site_node.privacy.noise import KEY_BYTES, NoiseSource
from site_node.training.device import chosen_device
from site_node.training.networks import initial_weights
from site_node.training.patients import prepare_cohort
from site_node.training.pixel_cache import PixelCache
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.trainer import train
from site_node.training.transforms import Picture
from site_node.update.steps import difference, update_payload
from tests.fakes.dicom import make_hospital

NO_GPU = 2
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "convnet": ("convnet", {}),
    "densenet": ("densenet", {}),
    "resnet18": ("resnet", {"layers": [2, 2, 2, 2], "planes": [64, 128, 256, 512]}),
}
NOISE_MULTIPLIER = 1.0
WARM_UP_STEPS = 2
MICROSECOND = 1e-6
DIGEST = "sha256:" + "0" * 64
PHASES = ("index", "read", "transform", "train", "update")
IN_EVERY_ROUND = ("train", "update")
Interval = tuple[float, float]
Result = TypeVar("Result")


class Stopwatch:
    """Seconds by phase."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._clock = clock

    def timed(self, phase: str, deed: Callable[[], Result]) -> Result:
        """Do something and add its time to a phase."""
        started = self._clock()
        result = deed()
        self.seconds[phase] += self._clock() - started
        return result


def study_of(options: argparse.Namespace, steps: int) -> StudySpec:
    """Return the study that is trained, with so many steps a round."""
    name, arguments = NETWORKS[options.network]
    return parse_study(
        {
            "name": "step",
            "label": {"classes": ["no", "yes"]},
            "preprocessing": {"size": [options.size, options.size], "augmentation": "light"},
            "network": {"name": name, "normalisation": "group", "arguments": arguments},
            "training": {"local_steps": steps, "sampling_rate": options.sampling_rate, "images_per_patient": 1},
            "rounds": 1,
            "participants": {"training_patients": options.patients, "minimum_sites": 1},
            "privacy": {"epsilon": options.epsilon, "delta": 1e-5},
        }
    )


@dataclass(frozen=True)
class Bench:
    """A study and its prepared patients."""

    study: StudySpec
    patients: PreparedPatients
    base: Weights

    def trained(self, study: StudySpec | None = None) -> Weights:
        """Take a round's steps; the GPU has ended its work, because the weights are here."""
        noise = None if self.study.privacy.epsilon is None else NOISE_MULTIPLIER
        source = NoiseSource(bytes(KEY_BYTES), DIGEST, DIGEST)
        return train(study or self.study, self.base, self.patients, source, noise_multiplier=noise, round_number=1)

    def update_of(self, weights: Weights) -> object:
        """Return the update as it would be handed over."""
        return update_payload(self.study, difference(self.base, weights))


def prepared(folder: Path, study: StudySpec, watch: Stopwatch) -> PreparedPatients:
    """Go the way from DICOM files to tensors as a site does for a new study."""
    index = folder / "index.sqlite"
    watch.timed("index", lambda: index_folder([folder / "images"], index))
    cohort = watch.timed("index", lambda: build_cohort(index, folder / "images" / "labels.csv", study, bytes(32)))
    return _tensors(study, cohort, folder / "cache", watch)


def _tensors(study: StudySpec, cohort: Cohort, cache: Path, watch: Stopwatch) -> PreparedPatients:
    def read(image: ImageRef) -> Picture:
        return watch.timed("read", lambda: read_pixels(image.path, image.frame))

    kept = PixelCache(cache, cache / "key")
    found = watch.timed("transform", lambda: prepare_cohort(study, cohort, ["train"], kept, read=read))
    watch.seconds["transform"] -= watch.seconds["read"]
    return found["train"]


def union_seconds(intervals: Iterable[Interval]) -> float:
    """Return how long at least one of these was at work.

    >>> union_seconds([(3.0, 4.0), (0.0, 1.0), (0.5, 2.0)])
    3.0
    """
    total, until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def gpu_seconds(deed: Callable[[], object]) -> float:
    """Do something under the profiler and return how long the GPU was at work in it."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as watched:
        deed()
    return MICROSECOND * union_seconds(
        (event.time_range.start, event.time_range.end)
        for event in watched.events() or ()
        if event.device_type.name == "CUDA"
    )


def shares(phases: Mapping[str, float], gpu: float | None, steps: int) -> dict[str, float | None]:
    """Return what is printed beside the phases: seconds of a step, and the shares that are not the GPU's own work."""

    def share(named: Sequence[str]) -> float | None:
        return None if gpu is None else round(1.0 - gpu / sum(phases[phase] for phase in named), 4)

    return {
        "step_seconds": round(phases["train"] / steps, 6),
        "gpu_seconds_of_a_step": None if gpu is None else round(gpu / steps, 6),
        "share_of_a_step": share(["train"]),
        "share_of_a_later_round": share(IN_EVERY_ROUND),
        "share_of_the_first_round": share(PHASES),
    }


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Take the whole way once and return what is printed."""
    watch, study = Stopwatch(), study_of(options, options.steps)
    make_hospital(
        folder / "images", options.patients, images_per_patient=1, size=options.pixels, split=lambda _: "train"
    )
    bench = Bench(study, prepared(folder, study, watch), initial_weights(study))
    bench.trained(study_of(options, WARM_UP_STEPS))
    weights = watch.timed("train", bench.trained)
    watch.timed("update", lambda: bench.update_of(weights))
    on_gpu = chosen_device().type == "cuda"
    gpu = gpu_seconds(bench.trained) if on_gpu else None
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "network": options.network,
        "images": len(bench.patients.rows),
        "steps": options.steps,
        "private": study.privacy.epsilon is not None,
        "phases": {phase: round(seconds, 6) for phase, seconds in watch.seconds.items()},
        **shares(watch.seconds, gpu, options.steps),
    }


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--network", choices=tuple(NETWORKS), default="resnet18")
    parser.add_argument("--size", type=int, default=224, help="edge of a prepared image")
    parser.add_argument("--pixels", type=int, default=512, help="edge of an image in its DICOM file")
    parser.add_argument("--patients", type=int, default=320)
    parser.add_argument("--sampling-rate", type=float, default=0.2)
    parser.add_argument("--epsilon", type=lambda text: None if text == "null" else float(text), default=8.0)
    parser.add_argument("--steps", type=int, default=20)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    options = parsed(arguments)
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before anything has asked for a GPU
    elif not torch.cuda.is_available():
        sys.stderr.write("torch sees no GPU here. --device cpu runs the same way on the processor, without shares.\n")
        return NO_GPU
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(json.dumps(measure(options, Path(folder))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
