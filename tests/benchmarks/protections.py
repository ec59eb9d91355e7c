"""What each protection costs in accuracy, beside the benchmark of the learning (`pneumonia.py`), as JSON.

    python tests/benchmarks/protections.py --data DATA --seeds 3 [--setting homomorphic ...]

DATA holds one folder for each hospital (A to E), with DICOM files and labels.csv. Each setting is `pneumonia.yaml` at
epsilon 8 with what stands beside its name below; `site-level` hides whole hospitals, which five are too few for: the
same patients are dealt over 20 and over 100 (`shared_noise.py`). Prints for each setting the final version's pooled
validation AUC of every seed and their mean; where the evaluation is noised that is the figure that people would see.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.pneumonia import ROOT, simulate
from tests.benchmarks.shared_noise import deal

JUDGED_TWICE = ("evaluation.every=1000", "evaluation.splits=[validation]")
HIDDEN = ("secure_aggregation.maximum_sites=5", "secure_aggregation.maximum_weight=2000", "transport.upload=[]")
SUMMED = ("evaluation.sum_under_masks=true", *JUDGED_TWICE)
SITE_LEVEL = (
    "privacy.mechanism=site-level",
    "privacy.unit=site",
    "privacy.update_norm=0.2",
    "strategy.weighting=equal",
    "rounds=5",
    *JUDGED_TWICE,
)
SETTINGS: dict[str, tuple[str, ...]] = {
    "dp-sgd": (),
    "masking": ("secure_aggregation.method=masking", *HIDDEN, *SUMMED),
    "homomorphic": ("secure_aggregation.method=homomorphic", "secure_aggregation.value_bits=8", *HIDDEN, *SUMMED),
    "noised-evaluation": ("evaluation.noise_epsilon=1", *JUDGED_TWICE),
    "noised-counts": ("privacy.count_epsilon=0.5",),
    "site-level-20": SITE_LEVEL,
    "site-level-100": SITE_LEVEL,
}


def hospitals_of(data: Path, setting: str, seed: int, out: Path) -> list[Path]:
    """Return the hospitals' folders: those of DATA, or as many as the setting's name says, dealt anew."""
    number = setting.rpartition("-")[2]
    if number.isdecimal():
        return deal(data, int(number), seed, out)
    return [folder for folder in sorted(data.iterdir()) if folder.is_dir()]


def measure(data: Path, setting: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Run all seeds of one setting."""
    runs = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            hospitals = hospitals_of(data, setting, seed, Path(folder) / "hospitals")
            changes = (*SETTINGS[setting], f"participants.minimum_sites={len(hospitals)}")
            runs.append(simulate(hospitals, "8", seed, Path(folder) / "run", changes))
    return {
        "setting": setting,
        "auc": round(mean(entry["auc"] for entry in runs), 4),
        "aucs": [round(entry["auc"], 4) for entry in runs],
        "epsilon_spent": max(entry["epsilon"] for entry in runs),
    }


def main() -> None:
    """Read the arguments, measure, print one JSON object for each setting as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "pneumonia_mnist")
    parser.add_argument("--setting", action="append", choices=list(SETTINGS), help="repeat for several")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    for setting in arguments.setting or list(SETTINGS):
        sys.stdout.write(json.dumps(measure(arguments.data, setting, range(arguments.seeds))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
