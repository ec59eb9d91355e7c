import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from protocol.tensors import Weights
from site_node.training.local_state import KEPT_ROUNDS, LocalState

STUDY = "sha256:" + "a" * 64


def state(folder: Path, number: int, study: str = STUDY) -> LocalState:
    return LocalState(folder, study, number)


def tensors(value: float) -> Weights:
    return {"weight": np.full((2, 2), value, np.float32), "bias": np.full(2, -value, np.float32)}


def value_of(weights: Weights | None) -> float | None:
    return None if weights is None else float(weights["weight"][0, 0])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def test_a_round_starts_from_the_state_after_an_earlier_round(tmp_path: Path) -> None:
    state(tmp_path, 1).keep("control", tensors(1.5))
    found = state(tmp_path, 4).before("control")  # the site was not asked in rounds 2 and 3
    assert found is not None
    assert {name: array.tolist() for name, array in found.items()} == {
        "weight": [[1.5, 1.5], [1.5, 1.5]],
        "bias": [-1.5, -1.5],
    }


def test_a_repeated_round_does_not_see_its_own_result_and_writes_the_same_bytes(tmp_path: Path) -> None:
    state(tmp_path, 1).keep("control", tensors(1.0))
    written = []
    for _ in range(2):
        before = value_of(state(tmp_path, 2).before("control"))
        assert before == 1.0
        state(tmp_path, 2).keep("control", tensors(before + 1.0))
        written.append(files(tmp_path))
    assert written[0] == written[1]


def test_a_version_is_judged_with_the_state_after_its_own_round(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        state(tmp_path, number).keep("own", tensors(number))
    assert value_of(state(tmp_path, 2).after("own")) == 2.0
    assert value_of(state(tmp_path, 3).after("own")) == 3.0


def test_a_late_repetition_never_replaces_the_state_of_a_later_round(tmp_path: Path) -> None:
    state(tmp_path, 5).keep("own", tensors(5))
    state(tmp_path, 3).keep("own", tensors(3))
    assert value_of(state(tmp_path, 6).before("own")) == 5.0
    assert value_of(state(tmp_path, 4).before("own")) is None


def test_names_and_studies_are_kept_apart(tmp_path: Path) -> None:
    other = "sha256:" + "b" * 64
    state(tmp_path, 1).keep("own", tensors(1))
    assert state(tmp_path, 2).before("control") is None
    assert state(tmp_path, 2, other).before("own") is None


def test_a_lost_state_starts_anew_and_the_log_says_so(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert state(tmp_path, 1).before("control") is None
    assert logs == []
    with capture_logs() as logs:
        assert state(tmp_path, 7).before("control") is None
    assert [(entry["event"], entry["name"], entry["round"]) for entry in logs] == [
        ("local_state_starts_anew", "control", 7)
    ]


def test_a_damaged_state_is_passed_over_for_the_one_before_it(tmp_path: Path) -> None:
    for number in (1, 2):
        state(tmp_path, number).keep("control", tensors(number))
    newest = max(tmp_path.rglob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-3])
    with capture_logs() as logs:
        assert value_of(state(tmp_path, 3).before("control")) == 1.0
    assert [(entry["event"], entry["round"]) for entry in logs] == [("local_state_damaged", 2)]


def test_an_unfinished_file_is_no_state(tmp_path: Path) -> None:
    state(tmp_path, 1).keep("control", tensors(1))
    folder = next(tmp_path.rglob("*.safetensors")).parent
    (folder / ".00000002.safetensors.cafe").write_bytes(b"half")
    assert value_of(state(tmp_path, 3).before("control")) == 1.0


def test_nobody_but_the_worker_reads_a_state(tmp_path: Path) -> None:
    state(tmp_path, 1).keep("own", tensors(1))
    [path] = tmp_path.rglob("*.safetensors")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@given(rounds=st.lists(st.integers(0, 10_000), min_size=1, max_size=12))
def test_the_disk_holds_two_rounds_and_the_newest_is_never_lost(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("state")
    one = state(folder, 0)
    for number in rounds:
        replace(one, round=number).keep("residual", tensors(number))
    assert len(files(folder)) <= KEPT_ROUNDS
    assert value_of(state(folder, max(rounds) + 1).before("residual")) == max(rounds)
    risen = sorted({number for place, number in enumerate(rounds) if number >= max(rounds[: place + 1])})
    if len(risen) > 1:
        assert value_of(state(folder, max(rounds)).before("residual")) == risen[-2]
