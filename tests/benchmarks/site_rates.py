"""What hospitals' own learning rates win where one hospital's training labels are wrong, and cost where none are.

    python -m tests.benchmarks.site_rates --data DATA --wrong a --rounds 6 --seeds 3 --adapt none --adapt updates

DATA holds one folder for each hospital, with DICOM files and labels.csv. The study is `studies/pneumonia.yaml` without
DP (`--epsilon 8` with), with `site_rates.adapt` as each --adapt says, simulated for each seed. Quality figures are
noised with epsilon 0.5, under DP with a tenth of the study's. The training labels of the hospitals named by --wrong are
inverted; held-out labels stay as they are. Prints one JSON object for each --adapt: the final version's pooled
validation AUC of every seed, their mean, and the factors of the last round of the first seed.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from tests.benchmarks.strategies import curve_of, hospitals_of

QUALITY_EPSILON = 0.5
QUALITY_SHARE = 0.1
"""Of epsilon, where quality is read under DP; without, the figures are noised all the same."""


def settings_of(adapt: str, epsilon: str, rounds: int) -> list[str]:
    """Return what is set in the study for a measurement."""
    settings = [f"rounds={rounds}", f"privacy.epsilon={epsilon}", f"site_rates.adapt={adapt}", "evaluation.every=1000"]
    if adapt in ("quality", "both"):
        share = QUALITY_EPSILON if epsilon == "null" else QUALITY_SHARE * float(epsilon)
        settings.append(f"site_rates.quality_epsilon={share}")
    return settings


def factors_of(out: Path) -> dict[str, float | None]:
    """Return each hospital's factor in the last round of a simulation."""
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {site["site"]: site["rate_factor"] for site in report["rounds"][-1]["sites"]}


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--adapt", action="append", required=True, choices=("none", "quality", "updates", "both"))
    parser.add_argument("--wrong", action="append", default=[], help="a hospital whose training labels are inverted")
    parser.add_argument("--epsilon", default="null")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hospitals = hospitals_of(options.data, options.wrong, Path(folder) / "hospitals")
        for adapt in options.adapt:
            settings = settings_of(adapt, options.epsilon, options.rounds)
            runs = [Path(folder) / f"{adapt}-{seed}" for seed in range(options.seeds)]
            aucs = [curve_of(hospitals, settings, seed, out)[-1] for seed, out in enumerate(runs)]
            result = {"adapt": adapt, "auc": round(mean(aucs), 4), "aucs": [round(auc, 4) for auc in aucs]}
            sys.stdout.write(json.dumps({**result, "factors": factors_of(runs[0])}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
