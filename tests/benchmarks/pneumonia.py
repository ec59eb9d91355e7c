"""How well five hospitals learn together: `wardround simulate` for each epsilon and seed, as JSON.

    python tests/benchmarks/pneumonia.py --data DATA --epsilon null --epsilon 8 --epsilon 3 --seeds 3

DATA holds one folder for each hospital (A to E), with DICOM files and labels.csv. Prints one object for each epsilon:
the final version's pooled validation AUC of every seed, their mean and target, the slowest run's seconds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STUDY = HERE / "studies" / "pneumonia.yaml"
TARGETS = {"null": 0.985, "8": 0.975, "3": 0.97}
SECONDS_ALLOWED = 600


def run(data: Path, epsilon: str, seed: int, out: Path) -> dict[str, Any]:
    """Simulate the study once and return its result."""
    return simulate([folder for folder in sorted(data.iterdir()) if folder.is_dir()], epsilon, seed, out)


def simulate(
    hospitals: Sequence[Path], epsilon: str, seed: int, out: Path, changes: Sequence[str] = ()
) -> dict[str, Any]:
    """Simulate the study once at these hospitals, with more settings, and return its result."""
    sites = [f"--site={folder.name.lower()}={folder}" for folder in hospitals]
    command = [sys.executable, "-m", "compose.cli", "simulate", str(STUDY), *sites, f"--out={out}", f"--seed={seed}"]
    settings = [f"--set={change}" for change in (f"privacy.epsilon={epsilon}", f"seed={seed}", *changes)]
    started = time.monotonic()
    done = subprocess.run([*command, *settings], cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        raise SystemExit(f"The simulation failed with status {done.returncode}:\n{done.stderr or done.stdout}")
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    last = report["rounds"][-1]
    return {"auc": last["metrics"]["auc"], "epsilon": report["privacy"]["epsilon"], "seconds": round(seconds, 1)}


def measure(data: Path, epsilon: str, seeds: int) -> dict[str, Any]:
    """Run all seeds of one epsilon."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [run(data, epsilon, seed, Path(folder) / str(seed)) for seed in range(seeds)]
    target = TARGETS.get(epsilon)
    auc = mean(entry["auc"] for entry in runs)
    slowest = max(entry["seconds"] for entry in runs)
    return {
        "epsilon": None if epsilon == "null" else float(epsilon),
        "auc": round(auc, 4),
        "target": target,
        "met": None if target is None else auc >= target and slowest <= SECONDS_ALLOWED,
        "aucs": [round(entry["auc"], 4) for entry in runs],
        "epsilon_spent": max((entry["epsilon"] or 0.0) for entry in runs) or None,
        "slowest_seconds": slowest,
    }


def main() -> None:
    """Read the arguments, measure, print JSON; exit status 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "pneumonia_mnist")
    parser.add_argument("--epsilon", action="append", help="null, 8, 3 or any other; repeat for several")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="cores that the run may use")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    results = [measure(arguments.data, epsilon, arguments.seeds) for epsilon in arguments.epsilon or list(TARGETS)]
    sys.stdout.write(json.dumps(results, indent=2) + "\n")
    raise SystemExit(any(result["met"] is False for result in results))


if __name__ == "__main__":
    main()
