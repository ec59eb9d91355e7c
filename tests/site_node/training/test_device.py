"""What torch says when a device's memory is short or it is lost, and what a task then trains on."""

from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs

from protocol.messages import Reason
from site_node.errors import DeviceLostError
from site_node.training.device import chosen_device, is_lost_device, is_out_of_memory, on_cpu
from site_node.training.task_device import LOSSES_UNTIL_CPU, RECORD, TaskDevice

LOST: list[Exception] = [
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
    torch.AcceleratorError("CUDA error: the launch timed out and was terminated"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    RuntimeError("No CUDA GPUs are available"),
]
SHORT: list[Exception] = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB."),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError("Unable to allocate 3.00 GiB for an array"),
]
NEITHER: list[Exception] = [
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    ValueError("CUDA error: no error of torch's"),
]


@pytest.mark.parametrize("error", LOST, ids=str)
def test_a_lost_device_is_known(error: Exception) -> None:
    assert (is_lost_device(error), is_out_of_memory(error)) == (True, False)


@pytest.mark.parametrize("error", SHORT, ids=str)
def test_short_memory_is_known(error: Exception) -> None:
    assert (is_lost_device(error), is_out_of_memory(error)) == (False, True)


def test_short_memory_of_the_machine_is_known_by_what_torch_really_says() -> None:
    with pytest.raises(RuntimeError) as said:
        torch.empty(2**50, dtype=torch.uint8)  # a pebibyte: no machine gives it
    assert (is_lost_device(said.value), is_out_of_memory(said.value)) == (False, True)


@pytest.mark.parametrize("error", NEITHER, ids=str)
def test_other_errors_are_neither(error: Exception) -> None:
    assert (is_lost_device(error), is_out_of_memory(error)) == (False, False)


def lose(device: TaskDevice, error: Exception) -> None:
    with device.chosen():
        raise error


@pytest.mark.parametrize("error", LOST, ids=str)
def test_a_loss_is_remembered_and_told_by_its_reason(tmp_path: Path, error: Exception) -> None:
    device = TaskDevice(tmp_path / "task", may_use_cpu=True)
    with pytest.raises(DeviceLostError) as told:
        lose(device, error)
    assert told.value.reason is Reason.DEVICE_LOST
    assert (tmp_path / "task" / RECORD).read_bytes() == b'{"losses": 1}'


@pytest.mark.parametrize("error", [*SHORT, *NEITHER], ids=str)
def test_another_error_is_what_it_was(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)):
        lose(TaskDevice(tmp_path, may_use_cpu=True), error)
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_never_saw_a_gpu_is_trained_on_the_cpu_and_leaves_no_record(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a machine with a GPU records it")
    with TaskDevice(tmp_path, may_use_cpu=False).chosen():
        assert chosen_device().type == "cpu"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gpu", [True, False], ids=["with a GPU", "the GPU is gone"])
@pytest.mark.parametrize("losses", [0, 1, LOSSES_UNTIL_CPU])
@pytest.mark.parametrize("may_use_cpu", [True, False])
def test_what_a_task_goes_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, losses: int, may_use_cpu: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    (tmp_path / RECORD).write_text(f'{{"losses": {losses}}}')
    device = TaskDevice(tmp_path, may_use_cpu)
    if not gpu and not may_use_cpu:
        with pytest.raises(DeviceLostError), device.chosen():
            pytest.fail("It must not be trained on the CPU.")
        return
    falls_back = not gpu or (may_use_cpu and losses >= LOSSES_UNTIL_CPU)
    with capture_logs() as logs, device.chosen():
        assert chosen_device().type == ("cpu" if falls_back else "cuda")
    assert [entry["event"] for entry in logs] == (["gpu_lost"] if falls_back else [])


def test_a_task_that_begins_on_a_gpu_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with TaskDevice(tmp_path / "task", may_use_cpu=False).chosen():
        pass
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceLostError), TaskDevice(tmp_path / "task", may_use_cpu=False).chosen():
        pass


def test_the_cpu_is_chosen_within_the_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with on_cpu(True), on_cpu(False):
        assert chosen_device().type == "cpu"
    assert chosen_device().type == "cuda"
