"""How few bytes five hospitals need to learn together: AUC and uploaded bytes for several lists of steps, as JSON.

    python -m tests.benchmarks.frugal --data DATA --seeds 3 --out runs/frugal --plot

DATA holds one folder for each hospital (A to E), with DICOM files and labels.csv; the study is that of `pneumonia.py`,
without differential privacy, whose noise would hide what the steps cost. For each list of steps: the final version's
pooled validation AUC (mean over the seeds) and what it loses against float32; the bytes of an update's payload, and all
that a site sends in a round (`wire`: payload, signed notice, account), each over the size of the update as float32.

A run whose report lies in OUT is not run again. Exit status 1 if no list of steps makes payloads at least 50 times
smaller at a loss of at most 0.005. `--plot` writes docs/images/frugal.png from what was measured.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import mean
from typing import Any

from tests.benchmarks.frugal_plot import draw

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STUDY = HERE / "studies" / "pneumonia.yaml"
PICTURE = ROOT / "docs" / "images" / "frugal.png"
SMALLER, LOSS = 50.0, 0.005
FLOAT32 = "float32"
CODECS: dict[str, dict[str, Any]] = {
    FLOAT32: {"upload": []},
    "top-k:0.03 quantise:4": {"upload": ["top-k:0.03", "quantise:4"]},
    "top-k:0.01 quantise:4": {"upload": ["top-k:0.01", "quantise:4"]},
    "quantise:8 zstandard": {"upload": ["quantise:8", "zstandard"]},
    "random-k:0.1 quantise:8": {"upload": ["random-k:0.1", "quantise:8"], "error_feedback": True},
}


def run(data: Path, codec: str, seed: int, folder: Path, others: Sequence[str] = ()) -> dict[str, float]:
    """Simulate the study once, unless its report is there, and return AUC and bytes."""
    if not (folder / "report.json").is_file():
        sites = [
            f"--site={hospital.name.lower()}={hospital}" for hospital in sorted(data.iterdir()) if hospital.is_dir()
        ]
        changes = [f"--set=transport.{key}={json.dumps(value)}" for key, value in CODECS[codec].items()]
        changes += [f"--set={change}" for change in others]
        settings = ["--set=privacy.epsilon=null", "--set=evaluation.every=20", f"--set=seed={seed}", *changes]
        command = [sys.executable, "-m", "compose.cli", "simulate", str(STUDY), *sites, f"--out={folder}", "--fresh"]
        command += [f"--seed={seed}", "--threads=1", *settings]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"The simulation failed with status {done.returncode}:\n{done.stderr or done.stdout}")
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    rounds = [entry for entry in report["rounds"] if entry["number"] > 0]
    return {
        "auc": rounds[-1]["metrics"]["auc"],
        "payload": mean(payload_sizes(folder / "hub")),
        "wire": mean(site["bytes_up"] for entry in rounds for site in entry["sites"]),
    }


def payload_sizes(hub: Path) -> list[int]:
    """Return the sizes of all training updates that a hub took."""
    with closing(sqlite3.connect(f"file:{hub / 'hub.sqlite'}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT payload_bytes FROM uploads WHERE task_id LIKE '%.train'").fetchall()
    return [int(size) for (size,) in rows]


def measure(
    data: Path, codecs: Sequence[str], seeds: int, out: Path, jobs: int, others: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Run all seeds of all lists of steps; the first is what the others are compared with."""
    wanted = [(codec, seed) for codec in codecs for seed in range(seeds)]
    folders = {pair: out / pair[0].replace(" ", "_").replace(":", "-") / str(pair[1]) for pair in wanted}

    def one(pair: tuple[str, int]) -> dict[str, float]:
        return run(data, pair[0], pair[1], folders[pair], others)

    with ThreadPoolExecutor(jobs) as pool:
        done = dict(zip(wanted, pool.map(one, wanted), strict=True))
    runs = {codec: [done[codec, seed] for seed in range(seeds)] for codec in codecs}
    size, auc = mean(entry["payload"] for entry in runs[FLOAT32]), mean(entry["auc"] for entry in runs[FLOAT32])
    return [row_of(codec, entries, size, auc) for codec, entries in runs.items()]


def row_of(codec: str, entries: list[dict[str, float]], size: float, auc: float) -> dict[str, Any]:
    """Return what is printed of one list of steps; `size` and `auc` are those of float32."""
    payload, wire = (mean(entry[key] for entry in entries) for key in ("payload", "wire"))
    loss = auc - mean(entry["auc"] for entry in entries)
    return {
        "steps": codec,
        "auc": round(auc - loss, 4),
        "aucs": [round(entry["auc"], 4) for entry in entries],
        "loss": round(loss, 4),
        "payload_bytes": round(payload),
        "payload_smaller": round(size / payload, 1),
        "wire_bytes": round(wire),
        "wire_smaller": round(size / wire, 1),
        "met": size / payload >= SMALLER and loss <= LOSS,
    }


def main() -> None:
    """Read the arguments, measure, print JSON; exit status 1 if the aim was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "pneumonia_mnist")
    parser.add_argument("--codec", action="append", choices=list(CODECS), help="beside float32; default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "frugal", help="kept: runs that are done stay done")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each of one thread")
    parser.add_argument("--plot", action="store_true")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the study otherwise; with an --out of its own",
    )
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    codecs = list(dict.fromkeys([FLOAT32, *(arguments.codec or CODECS)]))
    rows = measure(arguments.data, codecs, arguments.seeds, arguments.out, arguments.jobs, arguments.set)
    sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    if arguments.plot:
        draw(rows, PICTURE, SMALLER, LOSS)
    raise SystemExit(not any(row["met"] for row in rows))


if __name__ == "__main__":
    main()
