"""The benchmark against FLamby, on made-up data in its form: the split, the tables, the terms, and one small run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protocol.study import parse_study
from tests.benchmarks.flamby import DATASETS, OURS, compare, study_of
from tests.benchmarks.flamby_tables import HEART_CENTRES, Tables, _test_patients, heart_disease, published

TERMS = {"learning_rate": 0.01, "server_learning_rate": 1.0, "beta1": 0.9, "beta2": 0.999, "tau": 1e-8, "mu": 0.1}


@pytest.mark.parametrize(
    ("labels", "held_out"),
    [
        ([int(n % 3 == 0) for n in range(23)], [0, 1, 2, 6, 7, 8, 9, 16]),
        ([n % 2 for n in range(40)], [0, 2, 5, 6, 7, 8, 9, 11, 22, 23, 29, 32, 34, 39]),
        ([int(n == 4) for n in range(11)], [6, 7, 8, 10]),
    ],
    ids=["two thirds", "halves", "too few of one class"],
)
def test_the_split_is_that_of_scikit_learn(labels: list[int], held_out: list[int]) -> None:
    # train_test_split(test_size=1 - .66, train_size=.66, random_state=43, shuffle=True, stratify=...) of 1.7
    assert np.flatnonzero(_test_patients(np.array(labels))).tolist() == held_out


@pytest.mark.parametrize("strategy", sorted(OURS))
@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_strategys_study_is_legal(name: str, strategy: str) -> None:
    label = {"column": "e", "classes": ["no", "yes"]} | ({"time_column": "t"} if name == "brca" else {})
    tables = Tables([Path("a"), Path("b")], ["x0", "x1"], label, [60, 40], [30, 20])
    terms = TERMS if strategy.startswith("Fed") and strategy not in ("FedAvg", "FedProx") else {"learning_rate": 0.01}
    study = parse_study(study_of(DATASETS[name], tables, strategy, terms, 42))
    assert study.training.sampling_rate * 50 == pytest.approx(DATASETS[name].batch)  # on average over the centres


def made_up(folder: Path) -> Path:
    draws = np.random.default_rng(0)
    data = folder / "fed_heart_disease" / "data"
    data.mkdir(parents=True)
    for name in HEART_CENTRES:
        rows = []
        for number in range(40):
            values = [*draws.normal(50, 9, 14)]
            values[2], values[6], values[13] = 1 + number % 4, number % 3, (number % 2) * 2
            values[0] += 20 * (number % 2)
            cells = [f"{value:.1f}" for value in values]
            cells[10:13] = "?" * 3  # columns that FLamby leaves out
            rows.append(",".join(cells if number else ["?", *cells[1:]]))
        (data / f"processed.{name}.data").write_text("\n".join(rows) + "\n")
    (folder / "configs").mkdir()
    terms = {"strategies": {"FedAvg": {"learning_rate": 0.05}}}
    (folder / "configs" / "config_heart_disease.json").write_text(json.dumps(terms))
    results = folder / "published_results" / "heart_disease"
    results.mkdir(parents=True)
    for seed in (42, 43):
        lines = [f"FedAvg100,client_test_{centre},{0.4 + seed / 1000}" for centre in range(4)]
        lines = ["Method,Test,Metric", *lines, "FedAvg100,Pooled Test,0.9", "FedAdam100,client_test_0,0.1"]
        (results / f"heart_seed{seed}.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_tables_are_flambys_columns_scaled_by_each_centres_training_patients(tmp_path: Path) -> None:
    tables = heart_disease(made_up(tmp_path), tmp_path / "tables")
    assert (tables.training, tables.test, len(tables.columns)) == ([25] * 4, [14] * 4, 13)
    header, *rows = [line.split(",") for line in tables.paths[0].read_text().splitlines()]
    assert header[:3] == ["patient_id", "split", "disease"]
    training = np.array([row[3:] for row in rows if row[1] == "train"], float)
    np.testing.assert_allclose(training.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(training.std(axis=0, ddof=1), 1)


def test_a_run_stands_beside_the_published_figures(tmp_path: Path) -> None:
    data = made_up(tmp_path)
    assert published(data, "heart_disease", "FedAvg100") == [[0.442] * 4, [0.443] * 4]
    found = compare(data, replace(DATASETS["heart"], rounds=1), "FedAvg", seeds=1)
    assert found["published"] == 0.4425
    assert found["ours"] > 0.6  # one column tells most
    assert len(found["ours_by_centre"]) == 4
    assert found["met"]
