"""A training that is cut off after some step and goes on ends with the bytes of one that was not."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from protocol.privacy_accounting import noise_multiplier_of
from protocol.study import StudySpec, parse_study
from protocol.tensors import Weights, encode_weights
from site_node.errors import CacheError
from site_node.orders import WorkOrder
from site_node.training import checkpoints as task_checkpoints
from site_node.training.checkpoint_file import PIECE_BYTES, open_tensors, seal_tensors
from site_node.training.checkpoints import Checkpoints, software
from site_node.training.corrections import CONTROL
from site_node.training.local_round import Round, train_locally
from site_node.training.local_state import LocalState
from site_node.training.networks import initial_weights
from site_node.training.parts import Parts
from site_node.training.personal import OWN
from site_node.training.site_level import train_and_release
from site_node.training.training_state import Running
from tests.site_node.training.examples import make_noise, make_patients, make_study

KEY = b"c" * 32
STEPS = 4
PATIENTS = make_patients([1, 2, 3, 1] * 4)
STUDY_DIGEST = "sha256:" + "2" * 64


class CutOffError(Exception):
    """What stands for the end of a process."""


def study_of(changes: dict[str, Any] | None = None, epsilon: float | None = 8.0, **training: Any) -> StudySpec:
    small = {"local_steps": STEPS, "images_per_patient": 2, "augmentation": "light", "learning_rate": 0.25}
    study = make_study(epsilon=epsilon, **{**small, **training})
    return parse_study({**study.model_dump(mode="json", by_alias=True), **(changes or {})})


def order_of(study: StudySpec, task: str = "1") -> WorkOrder:
    return WorkOrder(
        kind="train",
        task_id="r2",
        task_digest="sha256:" + task * 64,
        study={},
        study_digest=STUDY_DIGEST,
        round=2,
        noise_multiplier=noise_multiplier_of(study),
    )


def checkpoints_in(folder: Path, task: str = "1", seconds: float = 0.0, **more: Any) -> Checkpoints:
    """Return checkpoints that are written after each step: no time passes in between."""
    more = {"clock": lambda: 0.0, **more}
    return Checkpoints(folder / "checkpoints", lambda: KEY, {"task": task, "cohort": "2"}, seconds, **more)


def state_in(folder: Path, study: StudySpec) -> LocalState:
    """Return what was kept in round 1, of which round 2 begins."""
    before = LocalState(folder / "state", STUDY_DIGEST, 1)
    start = initial_weights(study)
    if study.strategy.name == "scaffold":
        before.keep(CONTROL, {name: np.full_like(array, 0.01) for name, array in start.items()})
    if study.personal.ditto is not None:
        before.keep(OWN, {name: array + np.float32(0.1) for name, array in start.items()})
    return replace(before, round=2)


def round_in(folder: Path, study: StudySpec, checkpoints: Checkpoints | None, **changes: Any) -> Round:
    noise, order = make_noise("task"), order_of(study)
    start, state = initial_weights(study), state_in(folder, study)
    made = Round(study, start, PATIENTS, noise, order, lambda done: None, state, checkpoints=checkpoints)
    return replace(made, **changes)


def cut_off_after(steps: int) -> Callable[[float], None]:
    taken = [0]

    def report(done: float) -> None:
        taken[0] += 1
        if taken[0] == steps:
            raise CutOffError

    return report


CASES: dict[str, tuple[StudySpec, int]] = {
    "private": (study_of(), 1),
    "plain, momentum": (study_of(epsilon=None, momentum=0.9), 1),
    "private, Adam": (study_of(optimizer="adam", learning_rate=0.01), 1),
    "plain, BatchNorm": (study_of(epsilon=None, normalisation="batch"), 1),
    "FedProx": (study_of(proximal=0.5), 1),
    "SCAFFOLD": (study_of({"strategy": {"name": "scaffold"}}), 1),
    "FedBN": (study_of({"personal": {"keep": ["normalisation"]}}), 1),
    "Ditto": (study_of({"personal": {"ditto": 0.5}}), 2),
}


@pytest.mark.parametrize("case", CASES)
def test_a_training_that_is_cut_off_after_any_step_goes_on_to_the_same_bytes(tmp_path: Path, case: str) -> None:
    study, passes = CASES[case]
    expected = encode_weights(train_locally(round_in(tmp_path / "whole", study, None)))
    for cut in range(1, passes * STEPS + 1):
        place = tmp_path / str(cut)
        with pytest.raises(CutOffError):
            train_locally(round_in(place, study, checkpoints_in(place), report=cut_off_after(cut)))
        with capture_logs() as logs:
            again = train_locally(round_in(place, study, checkpoints_in(place)))
        assert encode_weights(again) == expected
        went_on = [entry["step"] for entry in logs if entry["event"] == "training_goes_on"]
        assert went_on == ([cut] if cut <= STEPS else [STEPS, cut - STEPS])
        assert states(place) == states(tmp_path / "whole")


def states(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder / "state").rglob("*.safetensors"))}


def test_an_update_that_is_noised_as_a_whole_is_the_same_too(tmp_path: Path) -> None:
    privacy = {"mechanism": "site-level", "unit": "site", "epsilon": 8.0, "delta": 1e-4}
    sites = {"minimum_sites": 10, "training_patients": 100}
    study = study_of({"privacy": privacy, "participants": sites, "strategy": {"weighting": "equal"}})

    def released(checkpoints: Checkpoints | None, report: Callable[[float], None] = lambda done: None) -> bytes:
        start = initial_weights(study)
        made = round_in(tmp_path, study, checkpoints)
        found = train_and_release(
            study, start, PATIENTS, make_noise("task"), noise_multiplier=2.0, update_norm=1.0, round_number=1,
            checkpoint=made.checkpoint("round", start), report=report,
        )  # fmt: skip
        return encode_weights(found.update)

    expected = released(None)
    with pytest.raises(CutOffError):
        released(checkpoints_in(tmp_path), cut_off_after(3))
    assert released(checkpoints_in(tmp_path)) == expected


def test_a_checkpoint_of_another_task_cohort_start_or_correction_is_not_used(tmp_path: Path) -> None:
    study = study_of()
    with pytest.raises(CutOffError):
        train_locally(round_in(tmp_path, study, checkpoints_in(tmp_path), report=cut_off_after(3)))
    there, start = checkpoints_in(tmp_path), initial_weights(study)
    moved = {name: array + np.float32(1) for name, array in start.items()}
    one = round_in(tmp_path, study, there)
    assert one.checkpoint("round", start) is not None
    assert found(one, start) is not None
    assert found(one, moved) is None
    assert found(round_in(tmp_path, study, checkpoints_in(tmp_path, task="other")), start) is None
    assert (
        found(round_in(tmp_path, study, replace(there, belongs_to={**there.belongs_to, "cohort": "3"})), start) is None
    )
    assert found(round_in(tmp_path, study, replace(there, key=lambda: b"d" * 32)), start) is None
    assert found(round_in(tmp_path, study, replace(there, seconds=math.inf)), start) is None


def found(training: Round, start: Weights) -> object:
    checkpoint = training.checkpoint("round", start)
    assert checkpoint is not None
    return checkpoint.found()


def test_what_memory_allowed_at_once_holds_after_going_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    computed = Parts.computed

    def short(self: Parts, compute: Any, images: int, least: int = 1) -> Any:
        seen.append(self.images_at_once)
        if self.images_at_once > 5:
            self.images_at_once = 5
        return computed(self, compute, images, least)

    monkeypatch.setattr(Parts, "computed", short)
    study = study_of()
    expected = encode_weights(train_locally(round_in(tmp_path, study, None)))
    with pytest.raises(CutOffError):
        train_locally(round_in(tmp_path, study, checkpoints_in(tmp_path), report=cut_off_after(2)))
    seen.clear()
    assert encode_weights(train_locally(round_in(tmp_path, study, checkpoints_in(tmp_path)))) == expected
    assert set(seen) == {5}


def test_a_short_training_writes_none_and_a_long_one_one_in_so_many_seconds(tmp_path: Path) -> None:
    now, written = [0.0], list[float]()

    def clock() -> float:
        return now[0]

    made = checkpoints_in(tmp_path, seconds=300.0, clock=clock)
    path = tmp_path / "checkpoints" / "round.sealed"

    def a_step(done: float) -> None:
        now[0] += 120.0
        if path.exists():
            written.append(path.stat().st_mtime_ns)

    train_locally(round_in(tmp_path, study_of(local_steps=2), made, report=a_step))
    assert not path.exists()
    train_locally(round_in(tmp_path, study_of(local_steps=12), made, report=a_step))
    assert len(set(written)) == 4  # of 1,440 seconds


def test_where_writing_is_slow_it_is_done_less_often(tmp_path: Path) -> None:
    now, at = [0.0], list[float]()

    def slow_key() -> bytes:
        at.append(now[0])
        now[0] += 10.0
        return KEY

    made = Checkpoints(tmp_path / "checkpoints", slow_key, {"task": "1"}, 1.0, clock=lambda: now[0])
    checkpoint = made.of_pass("round")
    network = torch.nn.Linear(2, 1)
    running = Running(network, torch.optim.SGD(network.parameters(), lr=0.1), make_noise(), Parts(8))
    for step in range(1, 401):
        now[0] += 1.0
        checkpoint.after(partial(running.state, step))
    assert at == [1.0, 211.0]  # ten seconds are a twentieth of two hundred


class Disk(NamedTuple):
    """What `shutil.disk_usage` says."""

    total: int
    used: int
    free: int


@pytest.mark.parametrize("trouble", ["no room", "no folder"])
def test_a_disk_that_takes_no_checkpoint_stops_nothing_and_is_told_once(
    tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of()
    expected = encode_weights(train_locally(round_in(tmp_path / "whole", study, None)))
    if trouble == "no room":
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(100, 100, 0))
    else:
        (tmp_path / "checkpoints").write_bytes(b"in the way")
    with capture_logs() as logs:
        trained = train_locally(round_in(tmp_path, study, checkpoints_in(tmp_path)))
    assert encode_weights(trained) == expected
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"].count("no_checkpoint") == 1
    assert not list(tmp_path.glob("checkpoints/*"))


TENSORS = {
    "weights": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "steps": torch.tensor(7, dtype=torch.int64),
    "nothing": torch.empty(0, 4),
    "sums": torch.full((PIECE_BYTES // 8 + 3,), 0.5, dtype=torch.float64),
}


def test_a_file_gives_back_what_was_sealed_and_shows_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.sealed"
    seal_tensors(path, KEY, "task", {"step": 3}, TENSORS)
    numbers, tensors = open_tensors(path, KEY, "task")
    assert numbers == {"step": 3}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype
    written = path.read_bytes()
    assert b"step" not in written
    assert TENSORS["weights"].numpy().tobytes() not in written
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["a.sealed"]
    seal_tensors(path, KEY, "task", {"step": 3}, TENSORS)
    assert path.read_bytes() != written  # a key of its own


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "a.sealed"
    seal_tensors(path, KEY, "task", {"step": 3}, {name: TENSORS[name] for name in ("weights", "steps")})
    return path


@given(data=st.data())
def test_a_byte_that_was_changed_or_is_missing_or_too_much_opens_nothing(sealed: Path, data: st.DataObject) -> None:
    whole = sealed.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["changed", "cut off", "longer"]))
    changed = {
        "changed": whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :],
        "cut off": whole[:place],
        "longer": whole + whole[place:],
    }[kind]
    other = sealed.with_name("other.sealed")
    other.write_bytes(changed)
    with pytest.raises(CacheError):
        open_tensors(other, KEY, "task")


def test_only_tensors_that_a_training_has_are_sealed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float32"):
        seal_tensors(tmp_path / "a", KEY, "task", {}, {"a": torch.zeros(2, dtype=torch.complex64)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["VERSION", "MASK_VERSION", "VOLUME_VERSION", "STEP_VERSION"])
def test_a_checkpoint_of_images_that_were_prepared_otherwise_is_of_other_software(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = software()
    monkeypatch.setattr(task_checkpoints, name, 99)
    assert software() != before
