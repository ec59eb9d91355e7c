"""What differential privacy costs a study of masks: the same hospitals and settings, without epsilon and with it.

    python -m tests.benchmarks.segmentation_privacy --data DATA [--epsilon 8] [--seed 0] [--split test]

DATA holds `msd_hippocampus` (docs/segmentation.md says where it comes from). Few patients and much noise ask for other
settings than training without: a network of few weights, every patient at every step, few steps, no augmentation,
Adam at the hub, a clipping norm near the gradients' own, and hospitals that share their noise. The terms are in
`TERMS`; the model without epsilon has the same ones, clipping too, so that the difference is what the noise costs.
Prints one object; the Dice coefficients are of held-out patients.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from protocol.study_parts import HeldOutSplit
from tests.benchmarks.segmentation import ROOT, Scores, quiet, train
from tests.benchmarks.segmentation_data import hippocampus

TERMS: dict[str, Any] = {
    "kind": "segmentation",
    "label": {"classes": ["background", "anterior", "posterior"]},
    "preprocessing": {"size": [32, 32, 32], "augmentation": "none"},
    "segmentation": {"loss": "dice"},
    "network": {"name": "unet", "arguments": {"channels": [4, 8], "strides": [2], "groups": 4}},
    "training": {"local_steps": 1, "sampling_rate": 1.0, "images_per_patient": 1, "learning_rate": 1.0},
    "strategy": {"name": "fedadam", "learning_rate": 0.03, "tau": 1e-6},
    "rounds": 80,
    "participants": {"training_patients": 108, "minimum_sites": 4, "quorum": 1.0},
    "transport": {"upload": []},
}
CLIP_NORM = 0.03
DELTA = 9e-4
"""Below one in ten training patients."""
WITHOUT: dict[str, Any] = {"privacy": {"epsilon": None, "clip_norm": CLIP_NORM}}


def private(epsilon: float) -> dict[str, Any]:
    """Return the terms of noise that the hospitals share, under masks."""
    return {
        "privacy": {
            "epsilon": epsilon,
            "delta": DELTA,
            "clip_norm": CLIP_NORM,
            "mechanism": "shared-noise",
            "honest_fraction": 1.0,
        },
        "secure_aggregation": {"method": "masking", "maximum_sites": 4, "maximum_weight": 64},
    }


def compare(data: Path, epsilon: float, seed: int, split: HeldOutSplit) -> dict[str, Any]:
    """Train without and with differential privacy; return the Dice coefficients of both."""
    found: dict[str, Scores] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        sites = hippocampus(data / "msd_hippocampus", place / "data")
        for name, terms in (("with", private(epsilon)), ("without", WITHOUT)):
            found[name] = train({**TERMS, **terms}, sites, seed, place / name, split)
    return {"metric": "Dice", "patients": split, "epsilon": epsilon, "delta": DELTA, "seed": seed, **found}


def main() -> None:
    """Read the arguments, train twice, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    arguments = parser.parse_args()
    quiet()
    sys.stdout.write(json.dumps(compare(arguments.data, arguments.epsilon, arguments.seed, arguments.split)) + "\n")


if __name__ == "__main__":
    main()
