"""How strategies compare on uneven hospitals, with one whose labels are wrong if asked, as JSON and as curves.

    python -m tests.benchmarks.strategies --data DATA --wrong a --rounds 6 --seeds 1 --epsilon null \
        --variant weighting=patients --variant weighting=equal --variant join=median,weighting=equal
    python -m tests.benchmarks.strategies --data DATA --rounds 8 --seeds 2 --epsilon null --figure curves.png \
        --variant FedAvg:name=fedavg --variant FedProx:training.proximal=0.1

DATA holds one folder for each hospital, with DICOM files and labels.csv. Each variant is the study of
`studies/pneumonia.yaml` with these keys (of `strategy` where no part of the study is named), simulated for each seed;
a word before a colon names it in the figure. The training labels of the hospitals named by --wrong are inverted;
held-out labels stay as they are. Prints one object for each variant: the final version's pooled validation AUC of
every seed, and their mean. With --curves or --figure every version is judged, and the object has the AUC of every
version, the first first, for each seed; --figure draws them, after those of --rows, an earlier call's lines.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from tests.benchmarks.strategies_plot import draw

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STUDY = HERE / "studies" / "pneumonia.yaml"


def inverted(hospital: Path, out: Path) -> Path:
    """Write a hospital with the same images, whose training labels are wrong, and return its folder."""
    with (hospital / "labels.csv").open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), list(reader.fieldnames or ())
    out.mkdir(parents=True)
    for entry in hospital.iterdir():
        if entry.name != "labels.csv":
            (out / entry.name).symlink_to(entry.resolve())
    for row in rows:
        if row["split"] == "train":
            row["label"] = str(1 - int(row["label"]))
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return out


def hospitals_of(data: Path, wrong: Sequence[str], folder: Path) -> dict[str, Path]:
    """Return the hospitals' folders by name."""
    found = {path.name.lower(): path for path in sorted(data.iterdir()) if path.is_dir()}
    return {name: inverted(path, folder / name) if name in wrong else path for name, path in found.items()}


def curve_of(hospitals: dict[str, Path], settings: Sequence[str], seed: int, out: Path) -> list[float]:
    """Simulate a study once and return the pooled AUC of each version that was judged, the first first."""
    sites = [f"--site={name}={path}" for name, path in hospitals.items()]
    command = [sys.executable, "-m", "compose.cli", "simulate", str(STUDY), *sites, f"--out={out}", f"--seed={seed}"]
    options = [f"--set={setting}" for setting in (*settings, f"seed={seed}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *options, "--threads=1"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"The simulation failed with status {done.returncode}:\n{done.stderr or done.stdout}")
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return [float(judged["auc"]) for entry in report["rounds"] if (judged := entry["metrics"])]


def settings_of(variant: str) -> tuple[str, list[str]]:
    """Return a variant's name and the study's keys that it sets.

    >>> settings_of("FedProx:training.proximal=0.1,momentum=0.9")
    ('FedProx', ['training.proximal=0.1', 'strategy.momentum=0.9'])
    >>> settings_of("join=median")
    ('join=median', ['strategy.join=median'])
    """
    name, _, terms = variant.rpartition(":")
    keys = [term if "." in term.partition("=")[0] else f"strategy.{term}" for term in terms.split(",")]
    return name or variant, keys


def measured(variant: str, curves: Sequence[Sequence[float]], *, whole: bool) -> dict[str, Any]:
    """Return what is printed for a variant."""
    name, keys = settings_of(variant)
    last = [curve[-1] for curve in curves]
    row: dict[str, Any] = {"variant": name, "set": keys, "auc": round(mean(last), 4), "aucs": _rounded(last)}
    return {**row, "curves": [_rounded(curve) for curve in curves]} if whole else row


def _rounded(aucs: Sequence[float]) -> list[float]:
    return [round(auc, 4) for auc in aucs]


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--variant", action="append", default=[], help="NAME:key=value,key=value; NAME may be left out")
    parser.add_argument("--wrong", action="append", default=[], help="a hospital whose training labels are inverted")
    parser.add_argument("--epsilon", default="null")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--curves", action="store_true", help="judge every version")
    parser.add_argument("--figure", type=Path, help="draw the curves into this PNG file; implies --curves")
    parser.add_argument("--rows", type=Path, help="what an earlier call printed with --curves")
    options = parser.parse_args()
    whole = options.curves or options.figure is not None
    every = f"evaluation.every={1 if whole else 1000}"
    common = [f"rounds={options.rounds}", f"privacy.epsilon={options.epsilon}", every]
    rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines()] if options.rows else []
    with tempfile.TemporaryDirectory() as folder:
        hospitals = hospitals_of(options.data, options.wrong, Path(folder) / "hospitals")
        for number, variant in enumerate(options.variant):
            settings = [*common, *settings_of(variant)[1]]
            runs = (Path(folder) / f"{number}-{seed}" for seed in range(options.seeds))
            curves = [curve_of(hospitals, settings, seed, out) for seed, out in enumerate(runs)]
            rows.append(measured(variant, curves, whole=whole))
            sys.stdout.write(json.dumps(rows[-1]) + "\n")
            sys.stdout.flush()
    if options.figure is not None:
        draw(rows, options.figure)


if __name__ == "__main__":
    main()
