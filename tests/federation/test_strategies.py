"""Strategies in a whole federation in one process: training works, and their state is where it should be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub.aggregation.strategy import ServerState
from hub.registry.lineage import read_lineage
from hub.services import open_services
from hub.settings import Settings
from hub.storage import stores
from protocol.digest import is_digest
from protocol.tensors import decode_weights
from tests.fakes.dicom import make_hospital
from tests.federation.masked_federation import masked_federation
from tests.federation.test_simulation import STUDY, report_of, run

NAMES = ("anna", "bela", "clara")


@pytest.fixture
def hospitals(tmp_path: Path) -> list[str]:
    for number, name in enumerate(NAMES):
        make_hospital(tmp_path / name, patients=30, seed=number)
    return [option for name in NAMES for option in ("--site", f"{name}={tmp_path / name}")]


def final_states(tmp_path: Path, out: str = "out") -> list[ServerState]:
    services = open_services(Settings(dir=tmp_path / out / "hub"), lambda name, arguments: None)
    try:
        with services.reading() as session:
            study = stores.studies(session)[0].digest
            versions = stores.versions(session, study)
            return [ServerState.from_document(read_lineage(row.lineage)["server_state"]) for row in versions]
    finally:
        services.waker.close()
        services.database.close()


PLAIN: dict[str, Any] = STUDY | {
    "rounds": 3,
    "privacy": {"epsilon": None},
    "participants": {"minimum_sites": 3, "quorum": 1.0},
}
CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "fedadam": ({"name": "fedadam", "learning_rate": 0.1}, {"momentum", "second_moment"}),
    "fedexp": ({"name": "fedexp"}, {"mean"}),
    "scaffold": ({"name": "scaffold"}, {"control"}),
    "median": ({"join": "median", "weighting": "equal", "norm_limit": 2.0}, set()),
}


@pytest.mark.parametrize("name", CASES)
def test_a_study_trains_and_each_version_carries_the_strategy_s_state(
    tmp_path: Path, hospitals: list[str], name: str
) -> None:
    strategy, arrays = CASES[name]
    status, output = run(tmp_path, *hospitals, study=PLAIN | {"strategy": strategy})
    assert status == 0, output
    report = report_of(tmp_path)
    assert report["study"]["state"] == "completed"
    assert report["final"]["metrics"]["auc"] >= 0.9
    states = final_states(tmp_path)
    assert [state.step for state in states] == list(range(4))
    assert all(set(state.blobs) == arrays and all(map(is_digest, state.blobs.values())) for state in states[1:])
    assert all(("server_step" in state.numbers) == (name == "fedexp") for state in states[1:])


def test_under_dp_the_weights_follow_the_noise_and_scaffold_s_variate_costs_nothing(
    tmp_path: Path, hospitals: list[str]
) -> None:
    private = STUDY | {"participants": {"minimum_sites": 3, "training_patients": 60}}
    epsilons = []
    for out, strategy in (("plain", {}), ("noise", {"name": "scaffold", "weighting": "noise"})):
        status, output = run(tmp_path, *hospitals, study=private | {"strategy": strategy}, out=out)
        assert status == 0, output
        epsilons.append(report_of(tmp_path, out)["privacy"]["epsilon"])
    assert epsilons[0] == epsilons[1]
    assert final_states(tmp_path, "noise")[-1].control is not None


def test_under_masks_the_control_variate_follows_from_the_sum_and_its_survivors(tmp_path: Path) -> None:
    with masked_federation(tmp_path, strategy={"name": "scaffold"}) as federation:
        federation.propose()
        federation.until("uploads")
        federation.lose("clara")
        federation.outlast()
        with federation.services.reading() as session:
            version = stores.newest_version(session, federation.study.digest)
            state = ServerState.from_document(read_lineage(version.lineage)["server_state"])
        control = decode_weights(federation.services.blobs.path(state.control or ""))["w"]
        mean = federation.weights(1)["w"] - federation.weights(0)["w"]
        # Ten steps of 0.1 make a way of one learning rate; four of the five sites that train answered.
        np.testing.assert_allclose(control, -4 / 5 * mean, atol=1e-6)
