"""GPUs: what the machine has, beside what a training job of this user sees, and what is kept free of them."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from site_node.doctor.finding import Finding, fine, problem, warning
from site_node.settings import SiteSettings
from site_node.tasks.gpu import gpus_seen_by_jobs

CHECK = "gpu"
SECONDS = 20
DEVICES = Path("/dev")


@dataclass(frozen=True)
class Gpus:
    """GPUs of the machine as the driver lists them (None: no driver's tool here), its device files, those jobs see."""

    listed: int | None
    devices: int
    seen: int


def examine(settings: SiteSettings) -> list[Finding]:
    """Count GPUs three ways; the last in a process made as jobs are."""
    devices = sum(1 for path in DEVICES.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name))
    return [verdict_on_gpus(Gpus(_listed(), devices, gpus_seen_by_jobs()), settings.keep_gpus_free)]


def verdict_on_gpus(gpus: Gpus, keep_free: int) -> Finding:
    """Say whether jobs reach what there is. Pure."""
    there = max(gpus.listed or 0, gpus.devices)
    if there and not gpus.seen:
        remedy = (
            "As the worker's user run: python -c 'import torch; print(torch.version.cuda, torch.cuda.device_count())'. "
            "None: torch is built without CUDA. 0: rights of /dev/nvidia*, CUDA_VISIBLE_DEVICES, or an older driver."
        )
        return problem(CHECK, f"This machine has {there} GPU(s), and the worker's jobs see none.", remedy)
    if not gpus.seen:
        return fine(CHECK, "There is no GPU here: jobs train on the processor.")
    if keep_free >= gpus.seen:
        remedy = "Lower keep_gpus_free in site.yaml, or show the worker more GPUs."
        return problem(CHECK, f"keep_gpus_free is {keep_free} of {gpus.seen} GPU(s): none is left for jobs.", remedy)
    says = f"The worker's jobs see {gpus.seen} GPU(s), of which {keep_free} are kept free."
    if gpus.seen < there:
        return warning(CHECK, f"{says} The machine has {there}.", "If that is not meant, see CUDA_VISIBLE_DEVICES.")
    return fine(CHECK, says)


def _listed() -> int | None:
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return sum(1 for line in done.stdout.splitlines() if line.startswith(b"GPU ")) if done.returncode == 0 else None
