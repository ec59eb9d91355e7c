"""Small tables and tabular studies for the tests of the site."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from protocol.study import StudySpec, parse_study

HEADER = "patient_id,age,marker,died,split\n"


def table_study(**parts: Any) -> StudySpec:
    """Return a small tabular study; parts are merged over the defaults, one level deep."""
    study: dict[str, Any] = {
        "name": "small-table",
        "kind": "tabular",
        "seed": 3,
        "cohort": {"minimum_patients": 1},
        "label": {"column": "died", "classes": ["no", "yes"]},
        "table": {"features": [{"column": "age", "mean": 60, "deviation": 10}, {"column": "marker", "missing": 2.0}]},
        "network": {"name": "linear"},
        "training": {"local_steps": 3, "sampling_rate": 0.5},
        "rounds": 2,
        "participants": {"training_patients": 100},
        "privacy": {"epsilon": None},
    }
    for name, part in parts.items():
        study[name] = study.get(name, {}) | part if isinstance(part, dict) else part
    return parse_study(study)


def survival_study(**parts: Any) -> StudySpec:
    """Return a small survival study on the same table with a column `days`."""
    label = {"time_column": "days"} | parts.pop("label", {})
    training = {"images_per_patient": 1} | parts.pop("training", {})
    return table_study(label=label, training=training, **parts)


def write_table(path: Path, rows: Sequence[str], header: str = HEADER) -> Path:
    """Write a table of these lines."""
    path.write_text(header + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def many_rows(patients: int, seed: int = 0) -> list[str]:
    """Return rows `patient_id,age,marker,died,split,days` in which the marker tells who dies, and soon."""
    draws = np.random.default_rng(seed)
    rows = []
    for number in range(patients):
        died = number % 2
        marker, days = draws.normal() + 2 * died, 10 + 100 * draws.random() * (2 - died)
        split = ("train", "train", "test")[number // 2 % 3]
        rows.append(f"PAT-{number},{60 + 10 * draws.normal():.2f},{marker:.3f},{died},{split},{days:.1f}")
    return rows


SURVIVAL_HEADER = "patient_id,age,marker,died,split,days\n"
