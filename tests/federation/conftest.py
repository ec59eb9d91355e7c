"""Federations with DICOM in one process, each on a hub of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.simulated_hub import SimulatedHub
from tests.fakes.dicom import make_hospital
from tests.federation.three_hospitals import NAMES
from tests.federation.two_hospitals import TwoHospitals


@pytest.fixture
def two_hospitals(tmp_path: Path) -> Iterator[TwoHospitals]:
    with SimulatedHub(tmp_path / "hub") as hub:
        yield TwoHospitals(tmp_path, hub)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[SimulatedHub]:
    """Beside the folders of three hospitals' images, for `ThreeHospitals`."""
    for number, name in enumerate(NAMES):
        make_hospital(tmp_path / name, patients=24, seed=number)
    with SimulatedHub(tmp_path / "hub") as opened:
        yield opened
