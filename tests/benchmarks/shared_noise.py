"""What sharing the noise wins for small hospitals: local DP-SGD against shared noise, at one epsilon, as JSON.

    python tests/benchmarks/shared_noise.py --data DATA --hospitals 10 --epsilon 1 --seeds 3

DATA holds folders of hospitals with DICOM files and labels.csv. Their training patients are dealt anew over so many
hospitals of equal size, and so are the held-out ones, differently for each seed. Both modes then run in the simulator
(`wardround simulate`: real gates, real masks), each with settings that were among the best for it on 600 training
patients set aside, with other seeds than those reported (local: learning rate 0.25 to 2, 5 to 15 steps a round, 10 or
20 rounds, sampling 0.2 or 0.5; shared: learning rate 0.5 to 2, 60 to 150 steps, sampling 0.1 or 0.2). The held-out
patients of the data were looked at for the report alone. A shared run takes about 5 minutes of one core, a local one 1.
Prints {"local": {"auc", "aucs", ...}, "shared": {...}}; the exit status is 1 if shared noise is not better in the mean.
"""

import argparse
import csv
import json
import os
import random
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
STUDIES = HERE / "studies"
SETTINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "local": (
        "pneumonia.yaml",
        (
            "training.local_steps=5",
            "training.learning_rate=0.5",
            "evaluation.splits=[validation]",
            "evaluation.every=1000",
        ),
    ),
    "shared": ("shared_noise.yaml", ()),
}
Row = dict[str, str]


def deal(data: Path, hospitals: int, seed: int, out: Path) -> list[Path]:
    """Deal the patients of all hospitals in DATA over so many new ones and return their folders."""
    patients: dict[str, list[Row]] = {}
    for labels in sorted(data.glob("*/labels.csv")):
        with labels.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                row["source"] = str((labels.parent / row["file"]).resolve())
                patients.setdefault(row["patient_id"], []).append(row)
    dealt: list[list[Row]] = [[] for _ in range(hospitals)]
    chance = random.Random(seed)  # noqa: S311 - a deal, not a secret
    for split in ("train", "validation"):
        of_split = sorted(who for who, rows in patients.items() if rows[0]["split"] == split)
        chance.shuffle(of_split)
        for place, who in enumerate(of_split):
            dealt[place % hospitals] += patients[who]
    return [write_hospital(out / f"h{number:02}", rows) for number, rows in enumerate(dealt)]


def write_hospital(folder: Path, rows: Sequence[Row]) -> Path:
    """Write one hospital: links to its images, and its labels.csv."""
    (folder / "images").mkdir(parents=True)
    for row in rows:
        (folder / "images" / Path(row["source"]).name).symlink_to(row["source"])
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        columns = [column for column in rows[0] if column != "source"]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def run(mode: str, hospitals: Sequence[Path], epsilon: float, seed: int, out: Path) -> dict[str, Any]:
    """Simulate one mode once and return its result."""
    study, settings = SETTINGS[mode]
    sites = [f"--site={folder.name}={folder}" for folder in hospitals]
    command = [sys.executable, "-m", "compose.cli", "simulate", str(STUDIES / study), *sites, f"--out={out}"]
    number = len(hospitals)
    settings = (*settings, f"privacy.epsilon={epsilon}", f"seed={seed}", f"participants.minimum_sites={number}")
    if mode == "shared":
        settings = (*settings, f"secure_aggregation.maximum_sites={number}")
    started = time.monotonic()
    done = subprocess.run(
        [*command, f"--seed={seed}", "--threads=1", *(f"--set={setting}" for setting in settings)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    if done.returncode:
        raise SystemExit(f"The simulation failed with status {done.returncode}:\n{done.stderr or done.stdout}")
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    auc = report["rounds"][-1]["metrics"]["auc"]
    return {"auc": auc, "epsilon": report["privacy"]["epsilon"], "seconds": round(seconds, 1)}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what one mode reached over the seeds."""
    return {
        "auc": round(mean(entry["auc"] for entry in runs), 4),
        "aucs": [round(entry["auc"], 4) for entry in runs],
        "epsilon_spent": max(entry["epsilon"] for entry in runs),
        "slowest_seconds": max(entry["seconds"] for entry in runs),
    }


def main() -> None:
    """Read the arguments, measure both modes with each seed, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "pneumonia_mnist")
    parser.add_argument("--hospitals", type=int, default=10)
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in SETTINGS}
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            hospitals = deal(arguments.data, arguments.hospitals, seed, Path(folder) / "hospitals")
            for mode, found in runs.items():
                found.append(run(mode, hospitals, arguments.epsilon, seed, Path(folder) / mode))
    result: dict[str, Any] = {mode: summary(found) for mode, found in runs.items()}
    result |= {"epsilon": arguments.epsilon, "hospitals": arguments.hospitals}
    result["met"] = result["shared"]["auc"] > result["local"]["auc"]
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    raise SystemExit(not result["met"])


if __name__ == "__main__":
    main()
