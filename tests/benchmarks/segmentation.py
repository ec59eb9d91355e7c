"""Segmentation and slice classification by real hospitals: together, pooled, and each alone, on our engine, as JSON.

    python -m tests.benchmarks.segmentation --data DATA [--task lgg-masks] [--seeds 3] [--tables docs/segmentation.md]

DATA holds `lgg_mri` and `msd_hippocampus` (docs/segmentation.md says where they come from). Every run is what
`wardround simulate` does: the hub's and the hospitals' real round code in one process. All models of a task take the
same number of steps with the same settings: those of the best model together by validation patients (`--split
validation`). What is shown is of test patients. Models that not all hospitals train are judged at all of them
nevertheless: a hospital that has held-out rows alone evaluates every version and trains nothing. Prints one object for
each task; exit status 1 if the hospitals together are below pooled training by more than 0.02. With --tables the tables
in that file are written anew.
"""

import argparse
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from structlog import configure, make_filtering_bound_logger

from compose.simulation import Simulation, run_simulation
from protocol.messages import EvaluationReport
from protocol.metrics import merge, summarise
from protocol.study import parse_study
from protocol.study_parts import HeldOutSplit
from protocol.value_histograms import mean_of, merge_values
from tests.benchmarks.last_reports import last_reports
from tests.benchmarks.segmentation_data import Folders, hippocampus, joined, lgg, lgg_slices, only
from tests.benchmarks.segmentation_tables import with_tables

ROOT = Path(__file__).parents[2]
ALLOWED = 0.02
POOLED = "pooled"
COMPARED = ("together", POOLED)
Scores = dict[str, float | None]
"""What a model reached at each hospital, and under `all` over all hospitals' held-out patients together."""


@dataclass(frozen=True)
class Task:
    """A data set and a study on it; `lay` writes the hospitals' folders."""

    folder: str
    metric: str
    lay: Callable[[Path, Path], Folders]
    terms: Mapping[str, Any]


TASKS: Mapping[str, Task] = {
    "lgg-masks": Task(
        "lgg_mri",
        "Dice",
        lgg,
        {
            "kind": "segmentation",
            "label": {"classes": ["background", "tumour"]},
            "preprocessing": {"size": [64, 64], "augmentation": "medium"},
            "network": {"name": "unet", "arguments": {"channels": [16, 32, 64, 128, 128], "strides": [2, 2, 2, 2]}},
            "training": {
                "local_steps": 25, "sampling_rate": 0.5, "images_per_patient": 4, "optimizer": "adam",
                "learning_rate": 0.005, "schedule": "cosine",
            },
            "rounds": 16,
        },
    ),
    "hippocampus-masks": Task(
        "msd_hippocampus",
        "Dice",
        hippocampus,
        {
            "kind": "segmentation",
            "label": {"classes": ["background", "anterior", "posterior"]},
            "preprocessing": {"size": [32, 32, 32], "augmentation": "light"},
            "network": {"name": "unet", "arguments": {"channels": [8, 16, 32], "strides": [2, 2]}},
            "training": {
                "local_steps": 20, "sampling_rate": 0.25, "images_per_patient": 1, "optimizer": "adam",
                "learning_rate": 0.01, "schedule": "cosine",
            },
            "rounds": 20,
        },
    ),
    "lgg-slices": Task(
        "lgg_mri",
        "AUC",
        lgg_slices,
        {
            "label": {"classes": ["no tumour", "tumour"]},
            "preprocessing": {"size": [64, 64], "augmentation": "medium"},
            "network": {"name": "convnet"},
            "training": {
                "local_steps": 4, "sampling_rate": 0.25, "images_per_patient": 8, "optimizer": "sgd",
                "learning_rate": 0.05,
            },
            "strategy": {"name": "fedadam", "learning_rate": 0.005, "tau": 1e-6},
            "rounds": 100,
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """Whose figures are wanted, of how many seeds, in how many processes at once."""

    split: HeldOutSplit
    seeds: int
    processes: int


def measure(name: str, data: Path, choice: Choice) -> dict[str, Any]:
    """Train together and pooled with each seed, at each hospital alone with the first; return the mean figures."""
    task = TASKS[name]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        folders = task.lay(data / task.folder, place / "data")
        federations = _federations(folders, place / "sites", choice.split)
        with ProcessPoolExecutor(choice.processes, get_context("spawn"), initializer=quiet) as pool:
            runs: dict[str, list[Future[Scores]]] = {
                model: [
                    pool.submit(_run, name, sites, seed, place / f"{model}-{seed}", choice.split)
                    for seed in range(choice.seeds if model in COMPARED else 1)
                ]
                for model, sites in federations.items()
            }
            found = {model: [run.result() for run in of_model] for model, of_model in runs.items()}
    models = {model: _means(scores) for model, scores in found.items()}
    together, pooled = models["together"]["all"] or 0.0, models[POOLED]["all"] or 0.0
    return {
        "metric": task.metric,
        "patients": choice.split,
        "steps": task.terms["rounds"] * task.terms["training"]["local_steps"],
        "seeds": choice.seeds,
        "models": models,
        "of_each_seed": {model: [_means([scores])["all"] for scores in found[model]] for model in COMPARED},
        "together_minus_pooled": round(together - pooled, 4),
        "met": together >= pooled - ALLOWED,
    }


def quiet() -> None:
    """Log errors alone."""
    configure(wrapper_class=make_filtering_bound_logger(logging.ERROR))


def _federations(folders: Folders, place: Path, split: HeldOutSplit) -> dict[str, Folders]:
    """Return who takes part in each model's training: with everything, with training patients, or to judge alone."""
    judges = {name: only(folder, place / f"{name}-held-out", {split}) for name, folder in folders.items()}
    judging = {name: folder for name, folder in judges.items() if _has_rows(folder)}
    trained = {name: only(folder, place / f"{name}-train", {"train"}) for name, folder in folders.items()}
    federations = {"together": dict(folders), POOLED: {POOLED: joined(trained, place / POOLED), **judging}}
    for name, folder in folders.items():
        federations[name] = {**judging, name: folder}
    return federations


def _has_rows(folder: Path) -> bool:
    return len((folder / "labels.csv").read_text(encoding="utf-8").splitlines()) > 1


def _run(name: str, sites: Folders, seed: int, out: Path, split: HeldOutSplit) -> Scores:
    task = TASKS[name]
    alone = {"single_class": "train"} if task.metric == "AUC" else {}
    terms = {"cohort": {"minimum_patients": 1, **alone}, "privacy": {"epsilon": None, "clip_norm": 10.0}, **task.terms}
    return train(terms, sites, seed, out, split)


def train(terms: Mapping[str, Any], sites: Folders, seed: int, out: Path, split: HeldOutSplit) -> Scores:
    """Train a study of these terms in a simulation; return the last version's figures on held-out patients."""
    study = {
        "name": f"hospitals-{seed}",
        "seed": seed,
        "cohort": {"minimum_patients": 1},
        "participants": {"minimum_sites": len(sites), "quorum": 1.0},
        "evaluation": {"splits": [split], "every": terms["rounds"], "sum_under_masks": False},
        **terms,
    }
    report = run_simulation(
        Simulation(parse_study(study), sites, out, seed, threads=1), Console(file=sys.stderr, quiet=True)
    )
    if report["study"]["state"] != "completed":
        raise SystemExit(f"The study ended as {report['study']['state']}: {report['study']['reason']}")
    reports = last_reports(out / "hub" / "hub.sqlite")
    shutil.rmtree(out)  # some GB: each round's versions and updates
    if not reports:  # summed under masks: the hub knows what all of them come to
        return {"all": report["final"]["metrics"]["mean"]}
    scores = {**{one.site: _figure([one], split) for one in reports}, "all": _figure(reports, split)}
    sys.stderr.write(f"{study['name']}, {out.name}: {scores}\n")
    return scores


def _figure(reports: list[EvaluationReport], split: HeldOutSplit) -> float | None:
    if reports[0].values:
        return mean_of(merge_values([report.values[split] for report in reports])).mean
    return summarise(merge([report.histograms[split] for report in reports])).auc


def _means(runs: list[Scores]) -> Scores:
    names = runs[0].keys()
    known = {name: [score for run in runs if (score := run[name]) is not None] for name in names}
    return {name: round(mean(scores), 4) if scores else None for name, scores in known.items()}


def main() -> None:
    """Read the arguments, measure, print JSON; exit status 1 if a figure is too far below pooled training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--task", action="append", choices=sorted(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--split", choices=["validation", "test"], default="test", help="whose figures are wanted")
    parser.add_argument("--tables", type=Path, help="a page whose tables are to be written anew")
    arguments = parser.parse_args()
    choice = Choice(arguments.split, arguments.seeds, arguments.processes)
    results = {}
    for name in arguments.task or list(TASKS):
        results[name] = measure(name, arguments.data, choice)
        sys.stdout.write(json.dumps({"task": name, **results[name]}) + "\n")
        sys.stdout.flush()
    if arguments.tables:
        page = arguments.tables.read_text(encoding="utf-8")
        arguments.tables.write_text(with_tables(page, results), encoding="utf-8")
    raise SystemExit(not all(result["met"] for result in results.values()))


if __name__ == "__main__":
    main()
