"""How strategies compare on uneven hospitals, with one whose labels are wrong if asked, as JSON.

    python tests/benchmarks/strategies.py --data DATA --wrong a --rounds 6 --seeds 1 --epsilon null \
        --variant weighting=patients --variant weighting=equal --variant join=median,weighting=equal

DATA holds one folder for each hospital, with DICOM files and labels.csv. Each variant is the study of
`studies/pneumonia.yaml` with these keys of `strategy`, simulated for each seed. The training labels of the hospitals
named by --wrong are inverted; held-out labels stay as they are. Prints one object for each variant: the final
version's pooled validation AUC of every seed, and their mean.
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


def auc_of(hospitals: dict[str, Path], settings: Sequence[str], seed: int, out: Path) -> float:
    """Simulate a study once and return its last version's pooled AUC."""
    sites = [f"--site={name}={path}" for name, path in hospitals.items()]
    command = [sys.executable, "-m", "compose.cli", "simulate", str(STUDY), *sites, f"--out={out}", f"--seed={seed}"]
    options = [f"--set={setting}" for setting in (*settings, f"seed={seed}", "evaluation.every=1000")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *options, "--threads=1"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"The simulation failed with status {done.returncode}:\n{done.stderr or done.stdout}")
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return float(report["rounds"][-1]["metrics"]["auc"])


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--variant", action="append", required=True, help="keys of strategy: name=fedadam,momentum=0.9")
    parser.add_argument("--wrong", action="append", default=[], help="a hospital whose training labels are inverted")
    parser.add_argument("--epsilon", default="null")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    common = [f"rounds={options.rounds}", f"privacy.epsilon={options.epsilon}"]
    with tempfile.TemporaryDirectory() as folder:
        hospitals = hospitals_of(options.data, options.wrong, Path(folder) / "hospitals")
        for number, variant in enumerate(options.variant):
            settings = [*common, *(f"strategy.{term}" for term in variant.split(","))]
            runs = (Path(folder) / f"{number}-{seed}" for seed in range(options.seeds))
            aucs = [auc_of(hospitals, settings, seed, out) for seed, out in enumerate(runs)]
            result = {"variant": variant, "auc": round(mean(aucs), 4), "aucs": [round(auc, 4) for auc in aucs]}
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
