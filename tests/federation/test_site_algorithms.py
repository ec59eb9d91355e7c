"""Algorithms with a part at the sites, against the papers' own loops written plainly: logistic regression in numpy.

Every patient is drawn at every step (sampling_rate 1), nothing is clipped and nothing noised, so that a whole study is
a deterministic function of the hospitals' tables. The hospitals differ: one sees only high values, one only low ones.
"""

import csv
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner

from compose.simulation import app
from protocol.digest import hex_of
from protocol.tensors import decode_weights

Vector = NDArray[np.float64]
COLUMNS = ("age", "pressure", "sugar")
ROUNDS, STEPS, RATE = 4, 5, 0.5
STUDY: dict[str, Any] = {
    "name": "three-values",
    "kind": "tabular",
    "cohort": {"minimum_patients": 2},
    "label": {"classes": ["absent", "present"]},
    "table": {"features": [{"column": column} for column in COLUMNS]},
    "network": {"name": "linear"},
    "training": {"local_steps": STEPS, "sampling_rate": 1.0, "learning_rate": RATE},
    "rounds": ROUNDS,
    "participants": {"minimum_sites": 3, "quorum": 1.0},
    "privacy": {"epsilon": None, "clip_norm": 1e6},
}
TOLERANCE = 2e-6
BINNED = 2e-3
"""Scores that fall into one bin of a histogram count as tied."""


@dataclass(frozen=True)
class Hospital:
    """Training patients: values (patient, 4), the last one 1 for the bias; labels (patient,)."""

    values: Vector
    labels: Vector

    def gradient(self, weights: Vector) -> Vector:
        scores = 1.0 / (1.0 + np.exp(-self.values @ weights))
        mean: Vector = self.values.T @ (scores - self.labels) / len(self.labels)
        return mean


@dataclass
class Federation:
    """The papers' loops. A state of a site, and of all, is a vector; `own` is what stays at each site."""

    hospitals: list[Hospital]
    weights: Vector
    own: dict[int, Vector] = field(default_factory=dict)
    common: Vector = field(default_factory=lambda: np.zeros(4))

    def mean(self, vectors: list[Vector]) -> Vector:
        sizes = [len(hospital.labels) for hospital in self.hospitals]
        return np.average(vectors, axis=0, weights=sizes)

    def slope(self) -> float:
        """Return the norm of the pooled gradient: 0 at the best common model."""
        return float(np.linalg.norm(self.mean([hospital.gradient(self.weights) for hospital in self.hospitals])))

    def steps(self, hospital: Hospital, start: Vector, added: Callable[[Vector], Vector]) -> Vector:
        weights = start
        for _ in range(STEPS):
            weights = weights - RATE * (hospital.gradient(weights) + added(weights))
        return weights

    def fedprox(self, mu: float) -> None:
        """Li et al. 2020, Algorithm 2, with gradient descent as the inexact solver; FedAvg with mu = 0."""
        x = self.weights
        self.weights = self.mean([self.steps(hospital, x, lambda w: mu * (w - x)) for hospital in self.hospitals])

    def scaffold(self) -> None:
        """Karimireddy et al. 2020, Algorithm 1, option II, all sites in each round."""
        x, ends, changes = self.weights, [], []
        for site, hospital in enumerate(self.hospitals):
            own, common = self.own.get(site, np.zeros(4)), self.common
            end = self.steps(hospital, x, lambda w, own=own, common=common: common - own)  # type: ignore[misc]
            self.own[site] = own - common + (x - end) / (STEPS * RATE)
            ends.append(end)
            changes.append(self.own[site] - own)
        self.weights = self.mean(ends)
        self.common = self.common + self.mean(changes)

    def fedbn(self, stays: NDArray[np.bool_]) -> None:
        """Li et al. 2021 (FedBN), Algorithm 1: what stays is neither sent nor replaced."""
        x, ends = self.weights, []
        for site, hospital in enumerate(self.hospitals):
            start = np.where(stays, self.own.get(site, x), x)
            self.own[site] = self.steps(hospital, start, np.zeros_like)
            ends.append(np.where(stays, x, self.own[site]))
        self.weights = self.mean(ends)

    def ditto(self, pull: float) -> None:
        """Li et al. 2021 (Ditto), Algorithm 1, with FedAvg as the solver of the global model."""
        x = self.weights
        for site, hospital in enumerate(self.hospitals):
            self.own[site] = self.steps(hospital, self.own.get(site, x), lambda v: pull * (v - x))
        self.fedprox(0.0)


def write_hospitals(folder: Path) -> dict[str, Path]:
    generator = np.random.default_rng(5)
    tables = {}
    for number, (name, shift) in enumerate({"high": 1.5, "low": -1.5, "middle": 0.0}.items()):
        path = folder / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["patient_id", *COLUMNS, "label", "split"])
            for patient in range(80 + 40 * number):
                values = np.round(generator.normal(shift, 1.0, 3), 3)
                label = int(values[0] - values[1] + generator.normal(0, 1.0) > 0.5 * shift)
                writer.writerow([f"P{patient:03d}", *values, label, "validation" if patient % 2 == 0 else "train"])
        tables[name] = path
    return tables


def hospital_of(path: Path, split: str = "train") -> Hospital:
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    values = [[*(float(np.float32(row[column])) for column in COLUMNS), 1.0] for row in rows]
    return Hospital(np.array(values), np.array([float(row["label"]) for row in rows]))


@dataclass(frozen=True)
class Run:
    """A finished study: its folder and report."""

    out: Path
    report: Mapping[str, Any]

    def blob(self, digest: str) -> Vector:
        [path] = (self.out / "hub").rglob(hex_of(digest))
        return vector_of(path)

    def versions(self) -> list[Vector]:
        with sqlite3.connect(self.out / "hub" / "hub.sqlite") as database:
            rows = database.execute("SELECT weights_digest FROM versions ORDER BY number").fetchall()
        database.close()
        return [self.blob(digest) for (digest,) in rows]

    def own(self, site: str, name: str) -> dict[str, NDArray[np.float32]]:
        files = sorted((self.out / "sites" / site / "worker" / "local_state").glob(f"*/{name}/*.safetensors"))
        assert [int(path.stem) for path in files] == [ROUNDS - 1, ROUNDS]
        return decode_weights(files[-1])

    def judged(self, site: str) -> tuple[float, float]:
        """Return the site's reported AUC and accuracy of the last version."""
        [entry] = [entry for entry in self.report["rounds"][-1]["sites"] if entry["site"] == site]
        return entry["metrics"]["auc"], entry["metrics"]["accuracy"]


def vector_of(path: Path) -> Vector:
    weights = decode_weights(path)
    return np.concatenate([weights["weight"][0], weights["bias"]]).astype(np.float64)


def simulated(folder: Path, tables: Mapping[str, Path], **changes: Any) -> Run:
    study = {**STUDY, **changes}
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    options = [f"--site={name}={path}" for name, path in tables.items()]
    result = CliRunner().invoke(
        app, [str(folder / "study.yaml"), "--out", str(folder / "out"), "--threads", "1", *options]
    )
    assert result.exit_code == 0, result.output
    return Run(folder / "out", json.loads((folder / "out" / "report.json").read_text(encoding="utf-8")))


def judgement(weights: Vector, hospital: Hospital) -> tuple[float, float]:
    """Return AUC and accuracy on a hospital's patients. The bias moves only the second."""
    scores = hospital.values @ weights
    positive, negative = scores[hospital.labels == 1], scores[hospital.labels == 0]
    return float(np.mean(positive[:, None] > negative[None, :])), float(np.mean((scores >= 0) == hospital.labels))


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    return write_hospitals(tmp_path)


def begun(run: Run, tables: Mapping[str, Path]) -> Federation:
    return Federation([hospital_of(path) for path in tables.values()], run.versions()[0])


def training(**changes: Any) -> dict[str, Any]:
    return {**STUDY["training"], **changes}


def assert_follows(run: Run, federation: Federation, take_round: Callable[[], None]) -> None:
    versions = run.versions()
    assert len(versions) == ROUNDS + 1
    for version in versions[1:]:
        take_round()
        np.testing.assert_allclose(version, federation.weights, atol=TOLERANCE)


def test_fedprox_is_the_paper_s_loop_and_epochs_are_steps(tmp_path: Path, tables: dict[str, Path]) -> None:
    terms = training(proximal=0.4, local_epochs=STEPS, local_steps=None)
    run = simulated(tmp_path, tables, training=terms)
    federation = begun(run, tables)
    assert_follows(run, federation, lambda: federation.fedprox(0.4))


def test_scaffold_is_the_paper_s_loop_at_sites_and_hub_and_ends_where_fedavg_does_not(
    tmp_path: Path, tables: dict[str, Path]
) -> None:
    run = simulated(tmp_path, tables, strategy={"name": "scaffold"})
    federation = begun(run, tables)
    assert_follows(run, federation, federation.scaffold)
    for number, site in enumerate(tables):
        own = run.own(site, "control")
        found = np.concatenate([own["weight"][0], own["bias"]])
        np.testing.assert_allclose(found, federation.own[number], atol=10 * TOLERANCE)
    averaged = begun(run, tables)
    for _ in range(1000):  # the loop is the engine's, as was just shown; on with it to where both come to rest
        averaged.fedprox(0.0)
        federation.scaffold()
    assert federation.slope() < averaged.slope() / 100, "SCAFFOLD rests at the minimum of the pooled loss"


def test_tensors_that_stay_are_fedbn_s_and_each_site_is_judged_with_its_own(
    tmp_path: Path, tables: dict[str, Path]
) -> None:
    run = simulated(tmp_path, tables, personal={"keep": ["bias"]})
    federation = begun(run, tables)
    stays = np.array([False, False, False, True])
    assert_follows(run, federation, lambda: federation.fedbn(stays))
    assert {version[3] for version in run.versions()} == {run.versions()[0][3]}
    biases, others = set(), set()
    for number, (site, path) in enumerate(tables.items()):
        own = run.own(site, "own")
        assert own.keys() == {"bias"}
        assert own["bias"][0] == pytest.approx(federation.own[number][3], abs=TOLERANCE)
        biases.add(float(own["bias"][0]))
        personal = np.where(stays, federation.own[number], federation.weights)
        held_out = hospital_of(path, "validation")
        assert run.judged(site) == pytest.approx(judgement(personal, held_out), abs=BINNED)
        others.add(judgement(personal, held_out) == pytest.approx(judgement(federation.weights, held_out), abs=BINNED))
    assert len(biases) == 3
    assert False in others, "the version without own tensors would have been judged otherwise"


@pytest.mark.parametrize("judged", ["own", "global"])
def test_ditto_trains_the_study_s_model_as_ever_and_a_personal_one_beside(
    tmp_path: Path, tables: dict[str, Path], judged: str
) -> None:
    run = simulated(tmp_path, tables, personal={"ditto": 0.3, "judged": judged})
    federation = begun(run, tables)
    assert_follows(run, federation, lambda: federation.ditto(0.3))
    alike = set()
    for number, (site, path) in enumerate(tables.items()):
        own = run.own(site, "own")
        found = np.concatenate([own["weight"][0], own["bias"]])
        np.testing.assert_allclose(found, federation.own[number], atol=TOLERANCE)
        held_out = hospital_of(path, "validation")
        models = {"own": federation.own[number], "global": federation.weights}
        figures = {name: judgement(model, held_out) for name, model in models.items()}
        assert run.judged(site) == pytest.approx(figures[judged], abs=BINNED)
        alike.add(figures["own"] == pytest.approx(figures["global"], abs=BINNED))
    assert False in alike, "the two models can be told apart by their figures"
