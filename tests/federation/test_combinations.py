"""Every legal pair of a study's options, in whole federations: hub, gates, agents and training in one process.

Which studies are run follows from the options: see `tests/protocol/combinations.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from compose.simulation import Simulation, run_simulation
from protocol.study import StudySpec, parse_study
from tests.fakes.dicom import make_hospital
from tests.protocol.combinations import Chosen, pairwise_cover, study_data
from tests.site_node.cohort.tables import SURVIVAL_HEADER, many_rows, write_table

PATIENTS = 12
SPLITS = ("train", "train", "validation", "test")


def data_of(folder: Path, study: StudySpec, place: int) -> Path:
    """Make a hospital's images or table; of every two patients one is positive."""
    if study.kind == "classification":
        make_hospital(folder / f"site-{place}", PATIENTS, size=8, seed=place, split=lambda n: SPLITS[n // 2 % 4])
        return folder / f"site-{place}"
    rows = [row.split(",") for row in many_rows(PATIENTS, place)]
    lines = [",".join([*row[:4], SPLITS[number // 2 % 4], row[5]]) for number, row in enumerate(rows)]
    return write_table(folder / f"site-{place}.csv", lines, SURVIVAL_HEADER)


def simulated(folder: Path, chosen: Mapping[str, str]) -> dict[str, Any]:
    """Run a study of these values and return its report; one site is not drawn where the study draws sites."""
    study = parse_study(study_data(chosen))
    count = study.participants.minimum_sites + (study.participants.sampled < 1)
    sites = {f"site-{place}": data_of(folder, study, place) for place in range(count)}
    return run_simulation(Simulation(study, sites, folder / "out", seed=0, threads=1), Console(quiet=True))


@pytest.mark.slow
@pytest.mark.parametrize("chosen", pairwise_cover(), ids=lambda chosen: ",".join(chosen.values()))
def test_every_legal_pair_of_options_makes_a_study_that_completes(tmp_path: Path, chosen: Chosen) -> None:
    report = simulated(tmp_path, chosen)
    assert report["study"]["state"] == "completed", report["study"]
    made = [version["number"] for version in report["versions"]]
    assert made in ([0, 1, 2], [0, 1]) if "patience" in chosen else made == [0, 1, 2]
    quality = report["final"]["metrics"]["concordance" if chosen.get("kind") == "survival" else "auc"]
    assert 0 <= quality <= 1 if quality is not None else chosen["counts"] == "noised"  # which may leave no positives
    private = chosen.get("mechanism", "off") != "off"
    assert 0 < report["privacy"]["epsilon"] <= 8 if private else report["privacy"]["epsilon"] is None
