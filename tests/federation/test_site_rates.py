"""Hospitals at rates of their own, in a whole federation in one process: whose data is poor takes smaller steps."""

import csv
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hub.registry.lineage import read_lineage
from hub.rounds.terms import stored_task
from hub.services import open_services
from hub.settings import Settings
from hub.storage import round_stores, stores
from protocol.messages import TaskKind
from protocol.site_rates import QualityFigures
from site_node.governance.privacy_ledger import ledger_entries
from site_node.governance.records import open_records
from site_node.settings import SitePaths
from tests.fakes.dicom import make_hospital, write_labels
from tests.federation.test_simulation import STUDY, report_of, run

NAMES = ("anna", "bela", "clara")


def federation_in(tmp_path: Path, spoil: Callable[[Path], None]) -> list[str]:
    for number, name in enumerate(NAMES):
        make_hospital(tmp_path / name, patients=30, seed=number, split=lambda n: "test" if n % 5 < 2 else "train")
    spoil(tmp_path / "clara")
    return [option for name in NAMES for option in ("--site", f"{name}={tmp_path / name}")]


def with_wrong_labels(hospital: Path) -> None:
    with (hospital / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wrong = [row | {"label": str(1 - int(row["label"]))} if row["split"] == "train" else row for row in rows]
    write_labels(hospital / "labels.csv", wrong)


def with_unreadable_images(hospital: Path) -> None:
    for patient in sorted(hospital.glob("P*"))[::2]:
        image = patient / "1.dcm"
        image.write_bytes(image.read_bytes()[:-200])


Kept = tuple[list[dict[str, float]], dict[int, dict[str, float | None]], dict[str, Any], dict[str, int]]


def kept(tmp_path: Path, out: str) -> Kept:
    """Return what a hub keeps of each version, each training task and each site.

    The version's numbers, the factor that the task named, the site's quality figures and its training patients.
    """
    services = open_services(Settings(dir=tmp_path / out / "hub"), lambda name, arguments: None)
    try:
        with services.reading() as session:
            study = stores.studies(session)[0].digest
            numbers = [read_lineage(row.lineage)["server_state"]["numbers"] for row in stores.versions(session, study)]
            factors: dict[int, dict[str, float | None]] = {}
            for row in round_stores.tasks_of_study(session, study):
                if row.kind == TaskKind.TRAIN:
                    factors.setdefault(row.round, {})[row.site] = stored_task(row.document).rate_factor
            sites = stores.participants(session, study)
            figures = {row.site: row.quality for row in sites}
            return numbers, factors, figures, {row.site: row.training_patients for row in sites}
    finally:
        services.waker.close()
        services.database.close()


PLAIN: dict[str, Any] = STUDY | {
    "rounds": 4,
    "privacy": {"epsilon": None},
    "participants": {"minimum_sites": 3, "quorum": 1.0},
}


def test_a_hospital_with_wrong_labels_learns_slower_and_the_model_is_no_worse(tmp_path: Path) -> None:
    sites = federation_in(tmp_path, with_wrong_labels)
    final = {}
    for adapt in ("none", "updates"):
        status, output = run(tmp_path, *sites, study=PLAIN | {"site_rates": {"adapt": adapt}}, out=adapt)
        assert status == 0, output
        final[adapt] = report_of(tmp_path, adapt)["rounds"][-1]["metrics"]
    numbers, factors, figures, weights = kept(tmp_path, "updates")
    assert set(factors[1].values()) == {None}
    for number in (2, 3, 4):
        assert factors[number] == {site: numbers[number - 1][f"rate.{site}"] for site in NAMES}
        wrong = factors[number]["clara"]
        assert wrong is not None
        assert wrong < 0.95
        assert all((factors[number][site] or 0.0) > wrong for site in ("anna", "bela"))
        weighted = sum(weights[site] * (factor or 0.0) for site, factor in factors[number].items())
        assert weighted / sum(weights.values()) == pytest.approx(1.0, abs=1e-4)
    assert numbers[1]["agreement.clara"] < 0 < numbers[1]["agreement.anna"]
    assert "trend.anna" in numbers[2]
    assert "trend.anna" not in numbers[1]
    assert set(figures.values()) == {None}
    assert final["updates"]["auc"] >= final["none"]["auc"]


def test_unreadable_images_are_told_noised_and_charged_and_cost_a_hospital_some_of_its_rate(tmp_path: Path) -> None:
    sites = federation_in(tmp_path, with_unreadable_images)
    study = STUDY | {
        "participants": {"minimum_sites": 3, "training_patients": 60},
        "site_rates": {"adapt": "both", "from_round": 1, "quality_epsilon": 3.9},
    }
    for out in ("first", "second"):
        status, output = run(tmp_path, *sites, "--seed", "3", study=study, out=out)
        assert status == 0, output
    numbers, factors, figures, _ = first = kept(tmp_path, "first")
    assert kept(tmp_path, "second") == first
    assert report_of(tmp_path, "first")["versions"] == report_of(tmp_path, "second")["versions"]
    told = {site: QualityFigures.model_validate_json(text) for site, text in figures.items()}
    assert {figure.noise_epsilon for figure in told.values()} == {3.9}
    assert told["clara"].unreadable > max(told["anna"].unreadable, told["bela"].unreadable)
    assert 0 < report_of(tmp_path, "first")["privacy"]["epsilon"] <= 8.0
    for site in report_of(tmp_path, "first")["rounds"][0]["sites"]:
        assert site["rate_factor"] == factors[1][site["site"]]
        assert site["rate_parts"]["quality"] == numbers[-1][f"rate_quality.{site['site']}"]
    assert (factors[1]["clara"] or 0.0) < 1.0 <= (factors[1]["anna"] or 0.0)
    assert {"rate_quality.clara", "rate_updates.clara"} <= numbers[-1].keys()


def test_quality_figures_leave_noised_and_charged_also_without_private_training(tmp_path: Path) -> None:
    sites = federation_in(tmp_path, with_unreadable_images)
    study = PLAIN | {"site_rates": {"adapt": "quality", "from_round": 1, "quality_epsilon": 3.9}, "rounds": 1}
    status, output = run(tmp_path, *sites, study=study)
    assert status == 0, output
    _, factors, figures, _ = kept(tmp_path, "out")
    assert {QualityFigures.model_validate_json(text).noise_epsilon for text in figures.values()} == {3.9}
    assert (factors[1]["clara"] or 0.0) < 1.0
    for name in NAMES:
        assert charged_to_training(tmp_path / "out" / "sites" / name) == [None, ("discrete-laplace", 3 / 3.9, 3)]


def charged_to_training(site: Path) -> list[tuple[str, float, int] | None]:
    with closing(open_records(SitePaths(site))) as database:
        events = [entry.event for entry in ledger_entries(database) if entry.patients == "training"]
    return [None if e is None else (e.mechanism, e.noise_multiplier, e.count) for e in events]
