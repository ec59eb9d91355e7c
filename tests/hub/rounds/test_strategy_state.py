"""A strategy's state between rounds: in the signed lineage, with its blobs, and the same after a killed close."""

from typing import Any

import numpy as np
import pytest

from hub.aggregation.strategy import ServerState
from hub.registry.lineage import read_lineage
from hub.registry.versions import version_view
from hub.rounds import committing
from hub.rounds.training_rounds import state_after
from hub.storage import stores
from protocol.messages import TaskKind
from protocol.tensors import decode_weights
from tests.hub.rounds.bench import Bench, filled, study_of

THREE = {"minimum_sites": 3, "quorum": 1.0, "training_patients": 100}


def states(bench: Bench) -> list[ServerState]:
    with bench.services.reading() as session:
        return [state_after(version) for version in stores.versions(session, bench.study.digest)]


def value_of(bench: Bench, digest: str | None) -> float:
    """Return the one value that all values of a blob have."""
    arrays = decode_weights(bench.services.blobs.path(digest or ""))
    (value,) = {float(value) for array in arrays.values() for value in array.flat}
    return value


def shown(bench: Bench) -> dict[str, Any]:
    """Return the newest version as the API shows it."""
    with bench.services.reading() as session:
        return version_view(stores.newest_version(session, bench.study.digest), [], None)


def test_momentum_is_carried_from_round_to_round(bench: Bench) -> None:
    bench.begin(study_of(strategy={"name": "fedavgm", "momentum": 0.5, "weighting": "equal"}))
    for _ in range(2):
        bench.train_all(1.0, 2.0, 3.0)
        bench.close()
        bench.report_all()
    assert [value_of(bench, state.weights) for state in states(bench)] == [0.0, 2.0, 5.0]
    assert [value_of(bench, state.blobs["momentum"]) for state in states(bench)[1:]] == [2.0, 3.0]
    assert bench.view()["state"] == "completed"


def test_the_state_stands_in_the_signed_lineage(bench: Bench) -> None:
    bench.begin(study_of(strategy={"name": "fedexp"}, participants=THREE))
    bench.train_all(1.0, 0.0, 0.0)
    bench.close()
    with bench.services.reading() as session:
        document = read_lineage(stores.newest_version(session, bench.study.digest).lineage)["server_state"]
    assert document["schema"] == "wardround.server-state/2"
    # Patients 10, 30, 60: the mean 0.1 of one update of five ones. 0.1 x 5 / (2 (0.01 x 5 + 0.001 x 0.1 x 5))
    step = 0.5 / (2 * (0.05 + 0.0005))
    assert document["numbers"]["server_step"] == pytest.approx(step)
    assert shown(bench)["server_step"] == pytest.approx(step)


def test_scaffold_s_control_variate_counts_the_sites_of_the_study(bench: Bench) -> None:
    training = {"local_steps": 4, "learning_rate": 0.5, "sampling_rate": 0.5}
    strategy = {"name": "scaffold", "weighting": "equal"}
    bench.begin(study_of(strategy=strategy, training=training, participants={"quorum": 0.5}))
    first, second, third = bench.tasks(TaskKind.TRAIN)
    assert first.control is None
    bench.update(first, filled(-4.0))
    bench.update(second, filled(0.0))
    bench.refuse(third)
    bench.close()
    # Mean update -2 over 4 x 0.5: a mean gradient of 1, from two of three sites.
    assert value_of(bench, states(bench)[-1].control) == pytest.approx(2 / 3)
    bench.report_all()
    (control,) = {task.control.weights_digest for task in bench.tasks(TaskKind.TRAIN) if task.control}
    assert control == states(bench)[-1].control


@pytest.mark.parametrize(
    "terms",
    [
        {"name": "fedadam", "learning_rate": 0.1},
        {"name": "fedexp"},
        {"name": "scaffold"},
        {"join": "geometric-median", "norm_limit": 1.5, "averaging": 0.5},
    ],
    ids=["fedadam", "fedexp", "scaffold", "geometric-median"],
)
def test_a_close_that_was_killed_before_its_commit_is_repeated_to_the_same_version(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, terms: dict[str, Any]
) -> None:
    bench.begin(study_of(strategy=terms, participants=THREE))
    found: list[ServerState] = []

    def die(*arguments: Any) -> bool:
        found.append(arguments[-1])
        raise KeyboardInterrupt

    for round_number in (1, 2):
        bench.train_all(*np.random.default_rng(round_number).normal(0, 1, 3).tolist())
        with monkeypatch.context() as killing:
            killing.setattr(committing, "_commit", die)
            with pytest.raises(KeyboardInterrupt):
                bench.close()
        assert len(states(bench)) == round_number
        bench.close()
        assert states(bench)[-1] == found[-1]
        bench.report_all()
    assert bench.view()["state"] == "completed"


def test_krum_takes_one_of_the_updates(bench: Bench) -> None:
    bench.begin(study_of(strategy={"join": "krum", "weighting": "equal", "wild_sites": 0}, participants=THREE))
    bench.train_all(1.0, 2.0, 4.0)
    bench.close()
    assert value_of(bench, states(bench)[-1].weights) == 1.0
    assert {part["site"]: part["share"] for part in shown(bench)["participants"]} == {"anna": 1, "bela": 0, "clara": 0}


def test_a_plain_mean_names_no_shares_beside_the_weights(bench: Bench) -> None:
    bench.begin(study_of())
    bench.train_all(1.0, 2.0, 4.0)
    bench.close()
    assert not any("share" in part for part in shown(bench)["participants"])
    assert shown(bench)["server_step"] is None


def test_too_few_hospitals_that_train_for_a_robust_joining_end_the_study_before_the_round(bench: Bench) -> None:
    krum = {"join": "krum", "weighting": "equal", "wild_sites": 0}
    bench.begin(study_of(strategy=krum, participants=THREE), patients=(10, 30, 0))  # one only evaluates
    assert len(states(bench)) == 1
    assert "2 sites would train, and 'krum' needs 3 updates" in bench.view()["reason"]
