"""What a simulation spares itself in one process changes nothing in what comes out."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from compose.simulated_hub import SimulatedHub
from protocol.keeping import LASTING, Keeping
from tests.fakes.dicom import make_hospital
from tests.federation.three_hospitals import NAMES, ThreeHospitals, run


@pytest.fixture
def hospitals(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        make_hospital(tmp_path / "hospitals" / name, patients=24, seed=seed)
    return tmp_path / "hospitals"


def simulated(hospitals: Path, folder: Path, keeping: Keeping | None, **changes: Any) -> tuple[list[Any], set[int]]:
    """Return the digests of a simulation's versions, and how many names its blobs' files have."""
    shutil.copytree(hospitals, folder)
    with SimulatedHub(folder / "hub", keeping) as hub:
        federation = ThreeHospitals(folder, hub, run, **changes)
        federation.run()
        assert federation.view()["state"] == "completed"
        versions = hub.researcher.get(f"/v1/studies/{federation.study.digest}/versions")
    names = {path.stat().st_nlink for path in (folder / "hub" / "blobs").rglob("*") if path.is_file()}
    return [version["digest"] for version in versions], names


@pytest.mark.parametrize("transport", [{"upload": []}, {"upload": ["quantise:8", "zstandard"]}])
def test_the_versions_are_those_of_a_run_that_copies_syncs_and_digests_at_every_hand_over(
    tmp_path: Path, hospitals: Path, transport: dict[str, Any]
) -> None:
    lasting, copies = simulated(hospitals, tmp_path / "lasting", LASTING, transport=transport)
    spared, links = simulated(hospitals, tmp_path / "spared", None, transport=transport)
    assert len(lasting) == 3
    assert spared == lasting
    assert copies == {1}
    assert max(links) > 1
