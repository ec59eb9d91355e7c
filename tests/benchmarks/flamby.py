"""FLamby's benchmark on our engine: its tables, splits, networks and terms, our rounds, both results side by side.

    python -m tests.benchmarks.flamby --data DATA [--dataset heart] [--strategy FedAvg] [--seeds 5]

DATA holds FLamby's data, configurations and published results (docs/tabular.md says where they come from). Each run is
`wardround simulate` on one CSV for each centre: the hub's and the sites' real round code in one process. Prints one
object for each data set and strategy; exit status 1 if one of ours is below FLamby's mean by more than its spread.

Like theirs: 100 steps a round, 15 rounds (heart) or 5 (TCGA-BRCA), five seeds from 42, one linear layer built from the
seed, plain gradient descent, each strategy's own rates, accuracy at 0.5 or the concordance index on each centre's test
patients, averaged over the centres. Not like theirs: patients are drawn by Poisson sampling, with one rate at all
centres, which gives their batch (4 or 8) on average over the centres: more at a large centre, fewer at a small one.
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from structlog import configure, make_filtering_bound_logger

from compose.simulation import Simulation, run_simulation
from protocol.concordance import summarise_pairs
from protocol.messages import EvaluationReport
from protocol.metrics import summarise
from protocol.study import parse_study
from protocol.unused_keys import SECOND_MOMENT
from tests.benchmarks.flamby_tables import Tables, configuration, heart_disease, published, tcga_brca
from tests.benchmarks.last_reports import last_reports

ROOT = Path(__file__).parents[2]
FIRST_SEED = 42
STEPS = 100
UNCLIPPED = 1e9
LARGEST_RATE, LARGEST_ADAPTIVE_RATE = 1.0, 0.999
"""Of the hub: a study with an adaptive step of 1 is refused; FLamby has 1.0 once (FedAdagrad on TCGA-BRCA)."""
OURS: dict[str, str] = {
    **{"FedAvg": "fedavg", "FedProx": "fedavg", "Scaffold": "scaffold"},
    **{"FedAdam": "fedadam", "FedYogi": "fedyogi", "FedAdagrad": "fedadagrad"},
}


@dataclass(frozen=True)
class Dataset:
    """One of FLamby's data sets and how it trains on it."""

    name: str
    config: str
    metric: str
    tables: Callable[[Path, Path], Tables]
    batch: int
    rounds: int


DATASETS = {
    "heart": Dataset("fed_heart_disease", "heart_disease", "accuracy", heart_disease, batch=4, rounds=15),
    "brca": Dataset("fed_tcga_brca", "tcga_brca", "concordance", tcga_brca, batch=8, rounds=5),
}


def study_of(dataset: Dataset, tables: Tables, strategy: str, terms: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the specification that says what FLamby's configuration says."""
    centres, patients = len(tables.paths), sum(tables.training)
    largest = LARGEST_ADAPTIVE_RATE if "tau" in terms else LARGEST_RATE
    return {
        "name": f"flamby-{strategy.lower()}-{seed}",
        "kind": "tabular",
        "seed": seed,
        "cohort": {"minimum_patients": 1, "single_class": "train"},  # Switzerland's thirty are all ill
        "label": tables.label,
        "splits": {"validation": 0, "test": 0},
        "table": {"features": [{"column": column} for column in tables.columns]},
        "network": {"name": "linear"},
        "training": {
            "local_steps": STEPS,
            "sampling_rate": dataset.batch * centres / patients,
            "images_per_patient": 1,
            "learning_rate": terms["learning_rate"],
            "proximal": terms.get("mu", 0.0),
        },
        "strategy": {
            "name": OURS[strategy],
            "learning_rate": min(terms.get("server_learning_rate", 1.0), largest),
            **({"momentum": terms["beta1"]} if "beta1" in terms else {}),
            **({"second_moment": terms["beta2"]} if "beta2" in terms and OURS[strategy] in SECOND_MOMENT else {}),
            **({"tau": terms["tau"]} if "tau" in terms else {}),
        },
        "rounds": dataset.rounds,
        "participants": {"minimum_sites": centres, "quorum": 1.0},
        "privacy": {"epsilon": None, "clip_norm": UNCLIPPED},
        "evaluation": {"splits": ["test"], "every": dataset.rounds, "sum_under_masks": False},
    }


def run(tables: Tables, study: dict[str, Any], seed: int) -> list[float]:
    """Simulate a study once and return the last version's figure at each centre."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        sites = {f"centre-{number}": path for number, path in enumerate(tables.paths)}
        report = run_simulation(
            Simulation(parse_study(study), sites, out, seed, threads=1), Console(file=sys.stderr, quiet=True)
        )
        if report["study"]["state"] != "completed":
            raise SystemExit(f"{study['name']} ended as {report['study']['state']}: {report['study']['reason']}")
        return [_figure(report) for report in last_reports(out / "hub" / "hub.sqlite")]


def _figure(report: EvaluationReport) -> float:
    if report.pairs:
        return summarise_pairs(report.pairs["test"]).concordance or 0.0
    return summarise(report.histograms["test"]).accuracy or 0.0


def compare(data: Path, dataset: Dataset, strategy: str, seeds: int) -> dict[str, Any]:
    """Run all seeds of a strategy and put FLamby's figures beside ours."""
    terms = configuration(data, dataset.config)[strategy]
    with tempfile.TemporaryDirectory() as folder:
        tables = dataset.tables(data, Path(folder))
        runs = [
            run(tables, study_of(dataset, tables, strategy, terms, seed), seed)
            for seed in range(FIRST_SEED, FIRST_SEED + seeds)
        ]
    theirs = published(data, dataset.config, f"{strategy}100")
    ours_by_seed, theirs_by_seed = list(map(mean, runs)), list(map(mean, theirs))
    spread = stdev(theirs_by_seed)
    return {
        "dataset": dataset.name,
        "metric": dataset.metric,
        "strategy": strategy,
        "ours": round(mean(ours_by_seed), 4),
        "our_spread": round(stdev(ours_by_seed), 4) if seeds > 1 else None,
        "published": round(mean(theirs_by_seed), 4),
        "published_spread": round(spread, 4),
        "met": mean(ours_by_seed) >= mean(theirs_by_seed) - spread,
        "ours_by_centre": [round(mean(own), 4) for own in zip(*runs, strict=True)],
        "published_by_centre": [round(mean(own), 4) for own in zip(*theirs, strict=True)],
        "ours_by_seed": [round(figure, 4) for figure in ours_by_seed],
        "published_by_seed": [round(figure, 4) for figure in theirs_by_seed],
    }


def main() -> None:
    """Read the arguments, measure, print JSON; exit status 1 if a figure is below the published one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "flamby")
    parser.add_argument("--dataset", action="append", choices=sorted(DATASETS))
    parser.add_argument("--strategy", action="append", choices=sorted(OURS))
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    configure(wrapper_class=make_filtering_bound_logger(logging.ERROR))
    results = []
    for dataset in arguments.dataset or list(DATASETS):
        for strategy in arguments.strategy or list(OURS):
            results.append(compare(arguments.data, DATASETS[dataset], strategy, arguments.seeds))
            sys.stdout.write(json.dumps(results[-1]) + "\n")
            sys.stdout.flush()
    raise SystemExit(not all(result["met"] for result in results))


if __name__ == "__main__":
    main()
