"""The measurement of a training step: its arithmetic by hand, and its way from DICOM to update on the processor."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.gpu_step import NO_GPU, PHASES, Stopwatch, main, shares, union_seconds

SMALL = ["--device", "cpu", "--network", "convnet", "--size", "32", "--pixels", "32", "--patients", "24"]


def test_overlapping_kernels_count_once() -> None:
    assert union_seconds([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (5.2, 5.4)]) == 4.0
    assert union_seconds([]) == 0.0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=12))
def test_the_union_is_what_counting_each_unit_gives(pieces: list[tuple[int, int]]) -> None:
    units = {unit for start, length in pieces for unit in range(start, start + length)}
    assert union_seconds((float(start), float(start + length)) for start, length in pieces) == len(units)


def test_the_shares_by_hand() -> None:
    phases = {"index": 1.0, "read": 2.0, "transform": 1.0, "train": 4.0, "update": 1.0}
    # The GPU works 3 of the 4 seconds of 10 steps, of the 5 of a later round, of the 9 of the first.
    assert shares(phases, 3.0, steps=10) == {
        "step_seconds": 0.4,
        "gpu_seconds_of_a_step": 0.3,
        "share_of_a_step": 0.25,
        "share_of_a_later_round": 0.4,
        "share_of_the_first_round": round(6 / 9, 4),
    }


def test_a_phase_is_timed_as_often_as_it_happens() -> None:
    ticks = iter([0.0, 1.0, 5.0, 7.5])
    watch = Stopwatch(lambda: next(ticks))
    assert [watch.timed("read", lambda: "picture") for _ in range(2)] == ["picture", "picture"]
    assert watch.seconds["read"] == 3.5


@pytest.mark.parametrize("epsilon", ["8", "null"])
def test_the_whole_way_on_the_processor(
    epsilon: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main([*SMALL, "--steps", "2", "--epsilon", epsilon]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["device"], said["images"], said["private"]) == ("cpu", 24, epsilon == "8")
    assert set(said["phases"]) == set(PHASES)
    assert all(seconds > 0 for seconds in said["phases"].values())
    assert said["share_of_a_step"] is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_and_ends_with_its_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cuda"]) == NO_GPU
    answer = capsys.readouterr()
    assert answer.out == ""
    assert "no GPU" in answer.err
