"""FLamby's two data sets of tables, as the CSV files of hospitals: its own patients, columns, scaling and split.

Fed-Heart-Disease: UCI Heart Disease (Janosi et al. 1988), CC BY 4.0; four centres, thirteen columns after FLamby's
preparation, each centre scaled by its own training patients (so FLamby does; a study's own constants are the same
everywhere). Fed-TCGA-BRCA: six regions, 39 columns, not scaled. Neither is part of this distribution.
Source: Ogier du Terrail et al. 2022, arXiv:2210.04620; the numpy draws are those of scikit-learn's train_test_split.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEART_CENTRES = ("cleveland", "hungarian", "switzerland", "va")
HEART_DROPPED, HEART_CATEGORIES = (10, 11, 12), (2, 6)
TRAIN_FRACTION, SPLIT_SEED = 0.66, 43
BRCA_REGIONS = 6

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Tables:
    """Hospitals' tables, in FLamby's order of centres, and what a study says of them."""

    paths: list[Path]
    columns: list[str]
    label: Mapping[str, Any]
    training: list[int]
    test: list[int]


def heart_disease(data: Path, folder: Path) -> Tables:
    """Write the four centres of Fed-Heart-Disease."""
    read = [_heart_centre(data / "fed_heart_disease" / "data" / f"processed.{name}.data") for name in HEART_CENTRES]
    levels = {column: sorted({row[column] for rows in read for row in rows})[1:] for column in HEART_CATEGORIES}
    tables = []
    for rows in read:
        values = np.array([_heart_features(row, levels) for row in rows])
        labels = np.array([int(row[13] > 0) for row in rows])
        test = _test_patients(labels)
        tables.append((_scaled(values, ~test), labels, test))
    columns = [f"x{number}" for number in range(tables[0][0].shape[1])]
    paths = [
        _written(
            folder / f"{name}.csv",
            ["patient_id", "split", "disease", *columns],
            [
                [f"p{row}", "test" if test[row] else "train", int(labels[row]), *map(repr, values[row].tolist())]
                for row in range(len(labels))
            ],
        )
        for name, (values, labels, test) in zip(HEART_CENTRES, tables, strict=True)
    ]
    label = {"column": "disease", "classes": ["healthy", "diseased"]}
    held_out = [int(test.sum()) for _, _, test in tables]
    return Tables(paths, columns, label, [len(t[1]) - n for t, n in zip(tables, held_out, strict=True)], held_out)


def tcga_brca(data: Path, folder: Path) -> Tables:
    """Write the six regions of Fed-TCGA-BRCA."""
    source = data / "fed_tcga_brca"
    places = {row["pid"]: row["fold2"] for row in _records(source / "train_test_split.csv")}
    patients = [row for row in _records(source / "brca.csv") if row["pid"] in places]
    columns = [name for name in patients[0] if name not in ("pid", "E", "T")]
    paths, training, test = [], [], []
    for region in range(BRCA_REGIONS):
        own = [(row, places[row["pid"]]) for row in patients if places[row["pid"]].endswith(f"_{region}")]
        rows = [[row["pid"], place.split("_")[0], row["E"], row["T"], *(row[c] for c in columns)] for row, place in own]
        names = ["patient_id", "split", "event", "days", *columns]
        paths.append(_written(folder / f"region-{region}.csv", names, rows))
        training.append(sum(row[1] == "train" for row in rows))
        test.append(sum(row[1] == "test" for row in rows))
    label = {"column": "event", "time_column": "days", "classes": ["alive", "dead"]}
    return Tables(paths, columns, label, training, test)


def published(data: Path, folder: str, method: str) -> list[list[float]]:
    """Return FLamby's figure of a method for each of its seeds, at each centre."""
    runs = []
    for path in sorted((data / "published_results" / folder).glob("*_seed*.csv")):
        own = {row["Test"]: float(row["Metric"]) for row in _records(path) if row["Method"] == method}
        runs.append([own[f"client_test_{number}"] for number in range(len(own) - 1)])  # one more is "Pooled Test"
    return runs


def configuration(data: Path, name: str) -> dict[str, dict[str, Any]]:
    """Return FLamby's terms of each strategy."""
    document = json.loads((data / "configs" / f"config_{name}.json").read_text(encoding="utf-8"))
    strategies: dict[str, dict[str, Any]] = document["strategies"]
    return strategies


def _heart_centre(path: Path) -> list[dict[int, float]]:
    """Return the rows without an unknown value in the columns that are kept."""
    rows = []
    for line in path.read_text(encoding="utf-8").split():
        cells = {number: cell for number, cell in enumerate(line.split(",")) if number not in HEART_DROPPED}
        if "?" not in cells.values():
            rows.append({number: float(cell) for number, cell in cells.items()})
    return rows


def _heart_features(row: Mapping[int, float], levels: Mapping[int, Iterable[float]]) -> list[float]:
    plain = [row[number] for number in sorted(row) if number not in (*HEART_CATEGORIES, 13)]
    return plain + [float(row[column] == level) for column in HEART_CATEGORIES for level in levels[column]]


def _scaled(values: Floats, training: NDArray[np.bool_]) -> Floats:
    deviation = values[training].std(axis=0, ddof=1)
    scaled: Floats = (values - values[training].mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return scaled


def _test_patients(labels: Whole) -> NDArray[np.bool_]:
    """Tell who is held out; by class where each class has more than two patients."""
    draws = np.random.RandomState(SPLIT_SEED)
    patients, counts = len(labels), np.bincount(labels, minlength=2)
    held_out, training = int(np.ceil((1 - TRAIN_FRACTION) * patients)), int(np.floor(TRAIN_FRACTION * patients))
    test = np.zeros(patients, bool)
    if min(counts) <= 2:
        test[draws.permutation(patients)[:held_out]] = True
        return test
    of_training = _shares(counts, training, draws)
    of_test = _shares(counts - of_training, held_out, draws)
    for label in (0, 1):
        own = np.flatnonzero(labels == label)[draws.permutation(counts[label])]
        test[own[of_training[label] : of_training[label] + of_test[label]]] = True
    return test


def _shares(counts: Whole, drawn: int, draws: np.random.RandomState) -> Whole:
    """Divide a draw among the classes by their sizes; who has the largest remainder is rounded up, ties by lot."""
    exact = counts / counts.sum() * drawn
    shares = np.floor(exact)
    remainder = exact - shares
    for value in np.unique(remainder)[::-1]:
        left = int(drawn - shares.sum())
        if left <= 0:
            break
        tied = np.flatnonzero(remainder == value)
        shares[draws.choice(tied, size=min(len(tied), left), replace=False)] += 1
    whole: Whole = shares.astype(np.int64)
    return whole


def _records(path: Path) -> Iterable[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _written(path: Path, names: list[str], rows: Iterable[Iterable[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)
    return path
