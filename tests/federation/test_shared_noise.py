"""A whole federation whose steps are sums under masks, each site adding a share of the noise."""

import json
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from compose.simulation import app
from protocol.messages import UpdateNotice, expect
from protocol.privacy_accounting import noise_multiplier_of
from protocol.secure_aggregation.fixed_point import dequantise
from protocol.shared_noise import shared_noise_of
from protocol.signing import read_unverified
from tests.fakes.dicom import make_hospital
from tests.federation.masked_federation import BASE, HOUR, NAMES, PHASE_IS_OVER, MaskedFederation, masked_federation

STUDY: dict[str, Any] = {
    "name": "shared",
    "cohort": {"modality": ["DX"], "minimum_patients": 2},
    "label": {"classes": ["absent", "present"]},
    "splits": {"validation": 0.2, "test": 0.0},
    "preprocessing": {"size": [16, 16], "augmentation": "none"},
    "network": {"name": "convnet"},
    "training": {"local_steps": 1, "sampling_rate": 0.5, "learning_rate": 0.5},
    "rounds": 2,
    "participants": {"minimum_sites": 4, "training_patients": 80},
    "privacy": {"epsilon": 8.0, "delta": 1e-3, "mechanism": "shared-noise"},
    "transport": {"upload": []},
    "secure_aggregation": {"method": "masking", "maximum_sites": 4, "maximum_weight": 100},
    "evaluation": {"every": 1000},
}


@pytest.fixture
def hospitals(tmp_path: Path) -> list[str]:
    names = ("anna", "bela", "clara", "dora")
    for number, name in enumerate(names):
        make_hospital(tmp_path / name, patients=20, seed=number)
    return [f"--site={name}={tmp_path / name}" for name in names]


def simulate(tmp_path: Path, hospitals: list[str], out: str) -> dict[str, Any]:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    command = [str(tmp_path / "study.yaml"), "--out", str(tmp_path / out), "--threads", "1", *hospitals]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads((tmp_path / out / "report.json").read_text())
    return report


def test_the_study_runs_within_its_epsilon_and_other_masks_give_the_same_versions(
    tmp_path: Path, hospitals: list[str]
) -> None:
    first, second = simulate(tmp_path, hospitals, "first"), simulate(tmp_path, hospitals, "second")
    assert first["study"]["state"] == "completed"
    assert 7.5 < first["privacy"]["epsilon"] <= 8.0
    # The noise is seeded in a simulation and the masks are not: they cancel to the bit, or versions would differ.
    assert first["versions"] == second["versions"]
    assert len({version["digest"] for version in first["versions"]}) == 3
    with sqlite3.connect(tmp_path / "first" / "hub" / "hub.sqlite") as database:
        rows = database.execute("SELECT notice, blob FROM updates WHERE round > 0").fetchall()
    database.close()
    assert len(rows) == 8
    assert {tuple(expect(read_unverified(notice), UpdateNotice).steps) for notice, _ in rows} == {
        ("gradient", "skellam", "masked")
    }
    with sqlite3.connect(tmp_path / "second" / "hub" / "hub.sqlite") as database:
        again = {blob for (blob,) in database.execute("SELECT blob FROM updates WHERE round > 0")}
    database.close()
    assert again.isdisjoint({blob for _, blob in rows})  # what the hub saw of a site was another each time


SIX = NAMES[:6]
RATE = 0.25


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[MaskedFederation]:
    """Six sites of a study that counts on five; nobody is ever drawn, so that every sum is noise alone."""
    changes: dict[str, Any] = {
        "training": {"local_steps": 1, "sampling_rate": 0.5, "learning_rate": RATE},
        "participants": {"minimum_sites": 6, "training_patients": 400},
        "privacy": {"epsilon": 8.0, "delta": 1e-4, "mechanism": "shared-noise"},
    }
    with masked_federation(tmp_path, 6, **changes) as opened:
        opened.propose()
        yield opened


def summed(federation: MaskedFederation, names: tuple[str, ...]) -> np.ndarray:
    """The plain sum of what these sites handed over."""
    ring = federation.terms.ring
    handed = [ring.decode(ring.from_bytes(federation.site(name).handed[1].data)) for name in names]
    return np.asarray(np.sum(handed, axis=0))


def assert_stepped_by(federation: MaskedFederation, names: tuple[str, ...]) -> None:
    assert federation.state()[0] == "completed", federation.state()
    terms = federation.terms
    divisor = terms.divisor(sum(terms.weight_of(federation.site(name).patients) for name in names))
    gradient = dequantise(summed(federation, names), terms.unit, divisor)
    stepped = (BASE["w"].astype(np.float64) - RATE * gradient.astype(np.float64)).astype(np.float32)
    assert np.array_equal(federation.weights(1)["w"], stepped)


def test_the_hub_steps_by_exactly_the_sum_of_the_sites_integers(federation: MaskedFederation) -> None:
    federation.rest()
    assert_stepped_by(federation, SIX)


@pytest.mark.parametrize("phase", ["keys", "shares", "uploads"])
def test_with_one_site_lost_the_sum_still_carries_more_than_the_noise_that_was_charged(
    federation: MaskedFederation, phase: str
) -> None:
    federation.until(phase)
    federation.lose("clara")
    federation.outlast()
    left = tuple(name for name in SIX if name != "clara")
    assert_stepped_by(federation, left)
    terms = shared_noise_of(federation.study)
    charged = (noise_multiplier_of(federation.study) or 0.0) * terms.clip_steps
    assert terms.sharing == 4  # of five survivors one may collude: 0.3 x 6, rounded down
    found = float(np.std(summed(federation, left)))
    assert found == pytest.approx(math.sqrt(5 / 4) * charged, rel=0.12)
    honest = float(np.std(summed(federation, left[:4])))
    assert honest == pytest.approx(charged, rel=0.12)


def test_four_survivors_could_open_the_sum_of_five_and_may_not(federation: MaskedFederation) -> None:
    federation.until("keys")
    federation.lose("clara")
    federation.clock.now += PHASE_IS_OVER
    federation.until("uploads")
    federation.lose("dora")
    federation.pass_time(2 * HOUR)
    assert federation.state()[0] == "running"
    assert federation.phase() == "uploads"  # nothing is opened; she may return
    federation.find_again("dora")
    assert_stepped_by(federation, tuple(name for name in SIX if name != "clara"))
