"""Noised numbers of training patients in a whole federation: weights, divisors and masks take the told ones alone."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hub.services import open_services
from hub.settings import Settings
from hub.storage import stores
from protocol.message import Message
from protocol.messages import Approval, UpdateNotice, parse_message
from protocol.signing import read_unverified
from site_node.governance.privacy_ledger import ledger_entries
from site_node.governance.records import open_records, study_records
from site_node.settings import SitePaths
from site_node.training.frozen_cohort import frozen_cohort
from tests.fakes.dicom import make_hospital
from tests.federation.test_simulation import STUDY, report_of, run

NAMES = ("anna", "bela", "clara", "dora")
EPSILON = 0.2
"""Of the counts: the noise moves a number by five or so; that it moves none of four has a chance of one in 10,000."""
MASKED: dict[str, Any] = {
    "secure_aggregation": {"method": "masking", "maximum_sites": 5, "maximum_weight": 200},
    "transport": {"upload": []},
}


@pytest.fixture
def hospitals(tmp_path: Path) -> list[str]:
    for number, name in enumerate(NAMES):
        make_hospital(tmp_path / name, patients=24 + 4 * number, seed=number)
    return [option for name in NAMES for option in ("--site", f"{name}={tmp_path / name}")]


def noised(**changes: Any) -> dict[str, Any]:
    # delta leaves room for the noise: the hub judges it by the sum of the told numbers
    privacy = STUDY["privacy"] | {"delta": 1e-4, "count_epsilon": EPSILON} | changes.pop("privacy", {})
    participants = {"minimum_sites": 4, "training_patients": 90}
    return STUDY | {"privacy": privacy, "participants": participants} | changes


@dataclass(frozen=True)
class Told:
    """What one site counted, what it told, and what it was charged for its training patients."""

    exact: int
    kept: int | None
    at_the_gate: int
    messages: list[Message]
    charged: list[tuple[str, float, int]]


def told_by(folder: Path) -> Told:
    paths = SitePaths(folder)
    with closing(open_records(paths)) as database:
        record = study_records(database)[0]
        envelopes = database.execute("SELECT envelope FROM envelopes ORDER BY number").fetchall()
        charged = [e.event for e in ledger_entries(database) if e.patients == "training" and e.event is not None]
    cohort = frozen_cohort(paths.frozen_cohorts, record.digest)
    return Told(
        exact=len(cohort.of("train")),
        kept=cohort.told,
        at_the_gate=record.training_patients,
        messages=[parse_message(read_unverified(row["envelope"])) for row in envelopes],
        charged=[(event.mechanism, event.noise_multiplier, event.count) for event in charged],
    )


def at_the_hub(tmp_path: Path, out: str = "out") -> dict[str, int]:
    services = open_services(Settings(dir=tmp_path / out / "hub"), lambda name, arguments: None)
    try:
        with services.reading() as session:
            study = stores.studies(session)[0].digest
            return {row.site: row.training_patients for row in stores.participants(session, study)}
    finally:
        services.waker.close()
        services.database.close()


@pytest.mark.parametrize("changes", [{}, MASKED], ids=["in clear", "under masks"])
def test_whatever_needs_the_number_takes_the_told_one(
    tmp_path: Path, hospitals: list[str], changes: dict[str, Any]
) -> None:
    status, output = run(tmp_path, *hospitals, "--seed", "5", study=noised(**changes))
    assert status == 0, output
    assert 0 < report_of(tmp_path)["privacy"]["epsilon"] <= 8.0
    sites, hub = {name: told_by(tmp_path / "out" / "sites" / name) for name in NAMES}, at_the_hub(tmp_path)
    for name, site in sites.items():
        approval = next(message for message in site.messages if isinstance(message, Approval))
        assert {approval.training_patients, site.kept, site.at_the_gate} == {hub[name]}
        assert approval.count_epsilon == EPSILON
        assert ("discrete-laplace", 1 / EPSILON, 1) in site.charged
        weights = {message.weight for message in site.messages if isinstance(message, UpdateNotice) and message.privacy}
        assert weights == ({float(hub[name])} if not changes else {1.0})
    assert any(site.exact != hub[name] for name, site in sites.items())


def test_the_same_seed_tells_the_same_numbers(tmp_path: Path, hospitals: list[str]) -> None:
    study = noised(rounds=1)
    for out in ("first", "second"):
        status, output = run(tmp_path, *hospitals, "--seed", "5", study=study, out=out)
        assert status == 0, output
    assert at_the_hub(tmp_path, "first") == at_the_hub(tmp_path, "second")
    assert report_of(tmp_path, "first")["versions"] == report_of(tmp_path, "second")["versions"]


def test_the_number_is_noised_and_charged_also_without_private_training(tmp_path: Path, hospitals: list[str]) -> None:
    status, output = run(tmp_path, *hospitals, study=noised(privacy={"epsilon": None}, rounds=1))
    assert status == 0, output
    for name in NAMES:
        site = told_by(tmp_path / "out" / "sites" / name)
        assert site.charged == [("discrete-laplace", 1 / EPSILON, 1)]
        assert site.kept == at_the_hub(tmp_path)[name]
