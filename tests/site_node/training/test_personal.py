from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.study import StudySpec, parse_study
from protocol.tensors import Weights
from site_node.errors import PersonalModelDivergedError, PersonalModelGoneError, UnknownTensorError
from site_node.training.local_state import LocalState
from site_node.training.networks import initial_weights
from site_node.training.personal import (
    BUFFERED_ROUNDS,
    DIVERGED,
    OWN,
    judged_weights,
    kept_tensors,
    rounds_kept,
    with_own,
    without_own,
)
from tests.site_node.training.examples import SMALLEST, make_study


def personal_study(network: str = "convnet", normalisation: str = "group", **personal: Any) -> StudySpec:
    study = make_study(network, epsilon=None, normalisation=normalisation)
    return parse_study({**study.model_dump(mode="json", by_alias=True), "personal": personal})


def state(folder: Path, number: int = 1) -> LocalState:
    return LocalState(folder, "sha256:" + "d" * 64, number)


def test_a_study_without_personal_parts_keeps_nothing_and_judges_the_version(tmp_path: Path) -> None:
    study = make_study()
    version = initial_weights(study)
    assert kept_tensors(study) == frozenset()
    assert judged_weights(study, version, state(tmp_path)) is version


def test_normalisation_is_every_scale_and_shift_and_nothing_else() -> None:
    kept = kept_tensors(personal_study(keep=["normalisation"]))
    assert kept == {f"{block}.adn.N.{part}" for block in (0, 1) for part in ("weight", "bias")}


@pytest.mark.parametrize("network", sorted(SMALLEST))
def test_running_statistics_of_a_batch_normalisation_stay_too(network: str) -> None:
    kept = kept_tensors(personal_study(network, "batch", keep=["normalisation"]))
    layers = {name.rsplit(".", 1)[0] for name in kept}
    assert layers
    assert kept == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias", "running_mean", "running_var")}


def test_a_pattern_names_tensors_and_several_entries_are_joined() -> None:
    study = personal_study(keep=["*.bias", "0.conv.weight"])
    names = set(initial_weights(study))
    assert kept_tensors(study) == {name for name in names if name.endswith(".bias")} | {"0.conv.weight"}


@pytest.mark.parametrize(
    ("keep", "words"),
    [(["head.*"], "'head.\\*' names no tensor"), (["*"], "nothing is learnt together")],
)
def test_tensors_that_cannot_be_kept_are_refused(keep: list[str], words: str) -> None:
    with pytest.raises(UnknownTensorError, match=words):
        kept_tensors(personal_study(keep=keep))


def test_own_tensors_take_the_place_of_the_version_s_and_leave_as_zero() -> None:
    version: Weights = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    own: Weights = {"b": np.full(2, 5, np.float32)}
    assert {name: array.tolist() for name, array in with_own(version, own).items()} == {"a": [1, 1], "b": [5, 5]}
    leaves = without_own(version, frozenset({"b"}))
    assert {name: array.tolist() for name, array in leaves.items()} == {"a": [1, 1], "b": [0, 0]}


def test_a_version_is_judged_with_the_site_s_own_tensors_put_in(tmp_path: Path) -> None:
    study = personal_study(keep=["normalisation"])
    version = initial_weights(study)
    assert judged_weights(study, version, state(tmp_path)) is version, "a site that never trained has no own tensors"
    name = min(kept_tensors(study))
    state(tmp_path).keep(OWN, {name: version[name] + 1})
    judged = judged_weights(study, version, state(tmp_path))
    assert {n for n in version if not np.array_equal(judged[n], version[n])} == {name}


@pytest.mark.parametrize(("judged", "is_own"), [("own", True), ("global", False)])
def test_with_ditto_the_study_says_which_model_is_judged(tmp_path: Path, judged: str, is_own: bool) -> None:
    study = personal_study(ditto=0.5, judged=judged)
    version = initial_weights(study)
    own = {name: array + 1 for name, array in version.items()}
    state(tmp_path).keep(OWN, own)
    found = judged_weights(study, version, state(tmp_path))
    for name in version:
        np.testing.assert_array_equal(found[name], own[name] if is_own else version[name])


def test_a_personal_model_that_diverged_is_not_judged_and_the_reason_says_so(tmp_path: Path) -> None:
    study = personal_study(ditto=0.5)
    state(tmp_path).keep(OWN, DIVERGED)
    with pytest.raises(PersonalModelDivergedError) as refused:
        judged_weights(study, initial_weights(study), state(tmp_path))
    assert refused.value.reason.value == "personal-model-diverged"


def buffered_study(**personal: Any) -> StudySpec:
    study = personal_study(**personal).model_dump(mode="json", by_alias=True)
    return parse_study({**study, "pace": {"mode": "buffered", "buffer": 2}})


@pytest.mark.parametrize("personal", [{"keep": ["normalisation"]}, {"ditto": 0.5}])
def test_in_buffered_rounds_a_version_is_judged_with_what_the_site_had_then(
    tmp_path: Path, personal: dict[str, Any]
) -> None:
    study = buffered_study(**personal)
    version = initial_weights(study)
    names = sorted(kept_tensors(study) or version)
    for number in range(1, BUFFERED_ROUNDS + 1):
        own = {name: np.full_like(version[name], number) for name in names}
        state(tmp_path, number).keep(OWN, own, rounds_kept(study))
    judged = judged_weights(study, version, state(tmp_path, 1))  # the site has trained on seven times since
    assert {float(judged[name].flat[0]) for name in names} == {1.0}


def test_a_version_whose_personal_model_is_gone_is_not_judged_with_another(tmp_path: Path) -> None:
    study = buffered_study(ditto=0.5)
    version = initial_weights(study)
    for number in range(1, BUFFERED_ROUNDS + 2):
        state(tmp_path, number).keep(OWN, version, rounds_kept(study))
    with pytest.raises(PersonalModelGoneError) as refused:
        judged_weights(study, version, state(tmp_path, 1))
    assert refused.value.reason.value == "personal-model-gone"


def test_a_damaged_personal_model_is_not_judged_as_if_there_had_been_none(tmp_path: Path) -> None:
    study = personal_study(ditto=0.5)
    version = initial_weights(study)
    state(tmp_path).keep(OWN, version)
    [path] = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(PersonalModelGoneError):
        judged_weights(study, version, state(tmp_path))


def test_a_site_that_began_to_train_after_a_version_judges_the_version(tmp_path: Path) -> None:
    study = buffered_study(ditto=0.5)
    version = initial_weights(study)
    state(tmp_path, 3).keep(OWN, {name: array + 1 for name, array in version.items()}, rounds_kept(study))
    assert judged_weights(study, version, state(tmp_path, 2)) is version
