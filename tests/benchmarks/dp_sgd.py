"""What differential privacy costs: one private training step beside one plain step, on one thread, as JSON.

    python tests/benchmarks/dp_sgd.py [--network resnet18] [--dimensions 2] [--size 64] [--patients 64]
        [--images-per-patient 1] [--repeats 15]

Both steps see the same images and end with the optimiser. The private one clips each patient's gradient and adds noise
from the site's secure stream, as training does. They are timed in turn, so that other work on the machine slows both;
medians are printed:

- `plain_seconds`, `private_seconds`, `ratio`; of the private step `clipping_seconds` and `noise_seconds`;
- `peak_mb`, `plain_peak_mb`: the most memory resident during a step, in a process of its own (Linux; else null), and
  `memory_ratio`: of what a step adds to what was resident before it (libraries, weights, images);
- `difference`: of the clipped sum from that of a loop over patients, relative (L2), both in float64: in float32 the
  loop itself is off by up to 1e-2 for a patient where rounding decides on which side of a ReLU's kink a value lies.

Exit status 1 if a target is missed; targets are for the ResNet-18 in two dimensions.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from protocol.study import StudySpec, parse_study
from site_node.privacy.clipping import PatientBatch, clipped_sum_of_batch
from site_node.privacy.noise import KEY_BYTES, NoiseSource, add_gaussian_noise
from site_node.training.networks import build_network, images_at_once
from site_node.training.objectives.choice import loss_of

RESNET18 = {"layers": [2, 2, 2, 2], "planes": [64, 128, 256, 512]}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "convnet": ("convnet", {}),
    "densenet": ("densenet", {}),
    "resnet": ("resnet", {}),
    "resnet18": ("resnet", RESNET18),
}
TARGETS = {"ratio": 1.8, "memory_ratio": 1.5, "difference": 1e-4}
NOISE_MULTIPLIER = 1.0
STEPS_FOR_PEAK = 3
DIGEST = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Bench:
    """A network and made-up patients."""

    study: StudySpec
    network: nn.Module
    batch: PatientBatch
    noise: NoiseSource
    optimizer: torch.optim.Optimizer

    def plain_step(self) -> None:
        """Take a step along the patients' mean gradient."""
        weights = torch.repeat_interleave(1.0 / self.batch.counts, self.batch.counts) / self.batch.patients
        losses = loss_of(self.study)(self.network(self.batch.images).squeeze(1), self.batch.targets)
        torch.autograd.backward((losses * weights).sum())
        self.optimizer.step()
        self.optimizer.zero_grad()

    def clipped_sum(self) -> Tensor:
        """Return the sum of the patients' clipped gradients."""
        return clipped_sum_of_batch(
            self.network, loss_of(self.study), self.batch, self.study.privacy.clip_norm,
            images_at_once=images_at_once(self.study),
        )  # fmt: skip

    def noised(self, total: Tensor) -> Tensor:
        """Return the noised sum."""
        deviation = NOISE_MULTIPLIER * self.study.privacy.clip_norm
        values = total.numpy()
        return torch.from_numpy(add_gaussian_noise(values, deviation, self.noise.gradients, out=values)).float()

    def follow(self, gradient: Tensor) -> None:
        """Take a step along a gradient given as one vector."""
        start = 0
        for parameter in self.network.parameters():
            parameter.grad = gradient[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def private_step(self) -> dict[str, float]:
        """Take a step along the patients' clipped and noised mean gradient; return the seconds of its parts."""
        started = time.perf_counter()
        total = self.clipped_sum()
        clipped = time.perf_counter()
        gradient = self.noised(total)
        noised = time.perf_counter()
        del total
        self.follow(gradient.div_(self.batch.patients))
        return {"clipping_seconds": clipped - started, "noise_seconds": noised - clipped}

    def in_double_precision(self) -> "Bench":
        """Return the same in float64."""
        batch = PatientBatch(self.batch.images.double(), self.batch.targets.double(), self.batch.counts)
        return Bench(self.study, deepcopy(self.network).double(), batch, self.noise, self.optimizer)

    def difference(self) -> float:
        """Return how far the clipped sum is from that of the loop, relative to it."""
        loop = self.loop_over_patients()
        return float((self.clipped_sum() - loop).norm() / loop.norm())

    def loop_over_patients(self) -> Tensor:
        """Return the clipped sum by its definition, with ordinary backward passes."""
        parameters = list(self.network.parameters())
        total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
        first = 0
        for count in self.batch.counts.tolist():
            own = slice(first, first := first + count)
            logits = self.network(self.batch.images[own]).squeeze(1)
            loss = loss_of(self.study)(logits, self.batch.targets[own]).mean()
            gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]).double()
            total += gradient * min(1.0, self.study.privacy.clip_norm / float(gradient.norm()))
        return total


def prepare(arguments: argparse.Namespace) -> Bench:
    """Build the network and make up patients."""
    name, sizes = NETWORKS[arguments.network]
    size = [arguments.size or (64 if arguments.dimensions == 2 else 32)] * arguments.dimensions
    study = parse_study(
        {
            "name": "cost",
            "label": {"classes": ["no", "yes"]},
            "preprocessing": {"size": size},
            "network": {"name": name, "normalisation": "group", "arguments": sizes},
            "training": {"local_steps": 1, "sampling_rate": 0.1, "images_per_patient": arguments.images_per_patient},
            "rounds": 1,
            "participants": {"training_patients": 1000},
            "privacy": {"epsilon": 8.0, "delta": 1e-5},
        }
    )
    generator = torch.Generator().manual_seed(0)
    images = arguments.patients * arguments.images_per_patient
    batch = PatientBatch(
        torch.randn(images, 1, *size, generator=generator),
        torch.randint(2, (images,), generator=generator).float(),
        torch.full((arguments.patients,), arguments.images_per_patient),
    )
    network = build_network(study).train()
    # A rate of zero does all the work and leaves the weights, so that each step is the same step.
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    return Bench(study, network, batch, NoiseSource(bytes(KEY_BYTES), DIGEST, DIGEST), optimizer)


def seconds_of(step: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def measure(bench: Bench, repeats: int) -> dict[str, float]:
    """Time both steps in turn and return medians."""
    bench.plain_step()
    bench.private_step()
    plain, private, parts = [], [], []
    for _ in range(repeats):
        plain.append(seconds_of(bench.plain_step))
        private.append(seconds_of(lambda: parts.append(bench.private_step())))
    return {
        "plain_seconds": median(plain),
        "private_seconds": median(private),
        "ratio": median(private) / median(plain),
        **{name: median(part[name] for part in parts) for name in parts[0]},
    }


def resident_mb(field: str) -> float | None:
    """Return a figure of this process' memory, by its name in Linux's /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    kilobytes = next(line for line in status.read_text().splitlines() if line.startswith(field + ":"))
    return int(kilobytes.split()[1]) / 1024


def print_peak(bench: Bench, kind: str) -> None:
    """Take steps of one kind and print the memory resident before them and their peak."""
    before = resident_mb("VmRSS")
    if before is not None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for _ in range(STEPS_FOR_PEAK):
        bench.plain_step() if kind == "plain" else bench.private_step()
    sys.stdout.write(json.dumps([before, resident_mb("VmHWM")]) + "\n")


def memory(command: list[str]) -> dict[str, float | None]:
    """Measure both steps' peaks, each in a process of its own."""
    figures = {}
    for kind in ("plain", "private"):
        done = subprocess.run([*command, "--peak-of", kind], check=True, capture_output=True, text=True)
        figures[kind] = json.loads(done.stdout)
    (before, plain), (private_before, private) = figures["plain"], figures["private"]
    if plain is None:
        return {"peak_mb": None, "plain_peak_mb": None, "memory_ratio": None}
    ratio = (private - private_before) / (plain - before)
    return {"peak_mb": private, "plain_peak_mb": plain, "memory_ratio": ratio}


def main() -> None:
    """Read the arguments, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(NETWORKS), default="resnet18")
    parser.add_argument("--dimensions", type=int, choices=[2, 3], default=2)
    parser.add_argument("--size", type=int, help="pixels along each axis; by default 64, or 32 in three dimensions")
    parser.add_argument("--patients", type=int, default=64)
    parser.add_argument("--images-per-patient", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--peak-of", choices=["plain", "private"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = prepare(arguments)
    if arguments.peak_of:
        print_peak(bench, arguments.peak_of)
        return
    result: dict[str, Any] = {
        **measure(bench, arguments.repeats),
        **memory([sys.executable, *sys.argv]),
        "difference": bench.in_double_precision().difference(),
    }
    rounded = {name: None if value is None else float(f"{value:.4g}") for name, value in result.items()}
    targeted = (arguments.network, arguments.dimensions) == ("resnet18", 2)
    met = all((result[name] or 0.0) <= target for name, target in TARGETS.items()) if targeted else None
    sys.stdout.write(json.dumps({**rounded, "met": met}, indent=2) + "\n")
    raise SystemExit(met is False)


if __name__ == "__main__":
    main()
