from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from protocol.privacy_accounting import noise_multiplier_of
from protocol.study import StudySpec, parse_study
from protocol.tensors import Weights
from site_node.errors import PersonalModelDivergedError
from site_node.orders import WorkOrder
from site_node.training import local_round
from site_node.training.corrections import CONTROL, Correction, next_control, scaffold
from site_node.training.local_round import Round, train_locally
from site_node.training.local_state import LocalState
from site_node.training.networks import initial_weights
from site_node.training.personal import DIVERGED, OWN, judged_weights, kept_tensors
from site_node.training.trainer import train
from tests.site_node.training.examples import make_noise, make_patients, make_study

PATIENTS = make_patients([1, 2, 3, 1] * 4)
RATE = 0.25
ALGORITHMS: dict[str, dict[str, Any]] = {
    "SCAFFOLD": {"strategy": {"name": "scaffold"}},
    "FedBN": {"personal": {"keep": ["normalisation"]}},
    "Ditto": {"personal": {"ditto": 0.5}},
}
EPSILONS = pytest.mark.parametrize("epsilon", [None, 8.0], ids=["plain", "private"])


def study_of(algorithm: str | None, epsilon: float | None = None, **training: Any) -> StudySpec:
    document = make_study(epsilon=epsilon, learning_rate=RATE, **training).model_dump(mode="json", by_alias=True)
    return parse_study({**document, **ALGORITHMS.get(algorithm or "", {})})


def round_of(folder: Path, study: StudySpec, number: int = 1, base: Weights | None = None, **changes: Any) -> Round:
    order = WorkOrder(
        kind="train",
        task_id=f"r{number}",
        task_digest="sha256:" + "1" * 64,
        study={},
        study_digest="sha256:" + "2" * 64,
        round=number,
        noise_multiplier=noise_multiplier_of(study),
    )
    state = LocalState(folder, order.study_digest, number)
    start = initial_weights(study) if base is None else base
    made = Round(study, start, PATIENTS, make_noise(f"task {number}"), order, lambda done: None, state)
    return replace(made, **changes)


def reference(training: Round, start: Weights, correction: Correction | None = None) -> Weights:
    return train(
        training.study,
        start,
        PATIENTS,
        make_noise(f"task {training.order.round}"),
        noise_multiplier=training.order.noise_multiplier,
        round_number=training.order.round,
        correction=correction,
    )


def same(one: Weights, other: Weights, tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], rtol=0, atol=tolerance)


def less(one: Weights, other: Weights) -> Weights:
    return {name: one[name] - other[name] for name in one}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def kept(training: Round, name: str) -> Weights:
    found = training.state.after(name)
    assert found is not None
    return found


@EPSILONS
def test_scaffold_corrects_each_step_and_keeps_what_the_update_says(tmp_path: Path, epsilon: float | None) -> None:
    study = study_of("SCAFFOLD", epsilon)
    base = initial_weights(study)
    first = round_of(tmp_path, study)
    update = train_locally(first)
    same(update, less(reference(first, base), base))  # nothing to correct by yet
    own = {name: (-moved.astype(np.float64) / (2 * RATE)).astype(np.float32) for name, moved in update.items()}
    same(kept(first, CONTROL), own)

    common = {name: array + 0.25 for name, array in own.items()}
    second = round_of(tmp_path, study, 2, control=common)
    update = train_locally(second)
    same(update, less(reference(second, base, scaffold(common, own)), base))
    same(kept(second, CONTROL), next_control(study, 2, common, own, update))


@EPSILONS
def test_what_fedbn_keeps_is_trained_goes_on_from_there_and_leaves_as_zero(
    tmp_path: Path, epsilon: float | None
) -> None:
    study = study_of("FedBN", epsilon)
    names, base = kept_tensors(study), initial_weights(study)
    first = round_of(tmp_path, study)
    update, trained = train_locally(first), reference(first, base)
    for name, moved in update.items():
        np.testing.assert_array_equal(moved, np.zeros_like(moved) if name in names else trained[name] - base[name])
    same(kept(first, OWN), {name: trained[name] for name in names})
    assert any(np.abs(trained[name] - base[name]).max() > 0 for name in names)

    version = {name: array + update[name] for name, array in base.items()}
    second = round_of(tmp_path, study, 2, version)
    train_locally(second)
    from_own = reference(second, {**version, **{name: trained[name] for name in names}})
    same(kept(second, OWN), {name: from_own[name] for name in names})


@EPSILONS
def test_ditto_s_update_is_what_it_would_be_without_and_its_model_is_pulled_to_the_version(
    tmp_path: Path, epsilon: float | None
) -> None:
    study = study_of("Ditto", epsilon)
    base = initial_weights(study)
    multiplier = noise_multiplier_of(study)
    first = round_of(tmp_path, study)
    update = train_locally(first)
    same(update, less(reference(first, base), base))
    own = kept(first, OWN)
    assert max(float(np.abs(array).max()) for array in less(own, base).values()) > 0

    version = {name: array + update[name] for name, array in base.items()}
    second = round_of(tmp_path, study, 2, version)
    train_locally(second)
    noise = make_noise("task 2")  # the personal steps draw from the same streams, after the round's own
    terms: dict[str, Any] = {"noise_multiplier": multiplier, "round_number": 2}
    train(study, version, PATIENTS, noise, **terms)
    expected = train(study, own, PATIENTS, noise, **terms, correction=Correction(0.5, towards=version))
    same(kept(second, OWN), expected)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
@EPSILONS
def test_a_round_that_is_killed_and_repeated_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, epsilon: float | None
) -> None:
    study = study_of(algorithm, epsilon)
    train_locally(round_of(tmp_path, study))
    with monkeypatch.context() as patch:
        patch.setattr(local_round, "train", _killed)
        with pytest.raises(KeyboardInterrupt):
            train_locally(round_of(tmp_path, study, 3))
    updates, states = [], []
    for _ in range(2):  # the second is a job that was killed after it had kept its state, before it was handed over
        updates.append(train_locally(round_of(tmp_path, study, 3)))
        states.append(files(tmp_path))
    same(updates[0], updates[1])
    assert states[0] == states[1]
    assert len(states[0]) == 2


def _killed(*_: object, **__: object) -> Weights:
    raise KeyboardInterrupt


@pytest.mark.parametrize("algorithm", [None, *sorted(ALGORITHMS)])
def test_progress_rises_evenly_to_the_end(tmp_path: Path, algorithm: str | None) -> None:
    told: list[float] = []
    train_locally(round_of(tmp_path, study_of(algorithm), report=told.append))
    assert told == ([0.25, 0.5, 0.75, 1.0] if algorithm == "Ditto" else [0.5, 1.0])


def test_a_study_without_such_an_algorithm_keeps_nothing(tmp_path: Path) -> None:
    train_locally(round_of(tmp_path, study_of(None)))
    assert list(tmp_path.iterdir()) == []


def test_a_personal_model_that_diverges_begins_again_at_the_next_version_and_the_round_goes_on(tmp_path: Path) -> None:
    study, base = study_of("Ditto"), initial_weights(study_of("Ditto"))
    train_locally(round_of(tmp_path, study))
    path = next(tmp_path.rglob("*.safetensors"))
    wild = round_of(tmp_path, study, 1)
    wild.state.keep(OWN, {name: np.full_like(array, 3e38) for name, array in base.items()})
    assert path.exists()
    with capture_logs() as logs:
        update = train_locally(round_of(tmp_path, study, 2))
    assert all(np.isfinite(moved).all() for moved in update.values())
    assert [entry["event"] for entry in logs] == ["personal_model_diverged"]
    assert kept(round_of(tmp_path, study, 2), OWN).keys() == DIVERGED.keys()
    with pytest.raises(PersonalModelDivergedError):  # the version's figures are not those of a personal model
        judged_weights(study, base, round_of(tmp_path, study, 2).state)
    third = round_of(tmp_path, study, 3)
    train_locally(third)
    assert kept(third, OWN).keys() == base.keys()
    assert all(np.isfinite(array).all() for array in kept(third, OWN).values())
    same(judged_weights(study, base, third.state), kept(third, OWN))
