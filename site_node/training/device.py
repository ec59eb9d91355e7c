"""The device that a job trains on, and how torch says that its memory was short or that it is lost.

    memory      torch.OutOfMemoryError; cudaMalloc's own error, which torch hands on as an AcceleratorError; of the
                machine's memory what torch's CPU allocator says, or a MemoryError
    lost        a GPU that fell off its bus, hangs, was reset, or whose driver went away: whatever is done next in this
                process fails too (the CUDA context is gone), so that only a fresh process can go on
    neither     an assertion of a kernel: a fault of the program, which another attempt would meet again

Source: NVIDIA, CUDA Runtime API, "CUDA Error types".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_CPU_ONLY: ContextVar[bool] = ContextVar("cpu_only", default=False)
_MEMORY = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
)
_LIBRARIES = ("CUDA error:", "CUDA driver error:", "cuDNN error:", "CUBLAS_STATUS_", "HIP error:")
_NO_GPU_ANY_MORE = ("No CUDA GPUs are available", "CUDA driver initialization failed", "CUDA unknown error")
_FAULT_OF_THE_PROGRAM = "device-side assert"


def chosen_device() -> torch.device:
    """Return the GPU of this process (`tasks/gpu.py`, `processes.py`), else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and not _CPU_ONLY.get() else "cpu")


@contextmanager
def on_cpu(only: bool) -> Iterator[None]:
    """Within the block choose the CPU, whatever GPU there is; not `only`: as ever."""
    before = _CPU_ONLY.set(only or _CPU_ONLY.get())
    try:
        yield
    finally:
        _CPU_ONLY.reset(before)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether torch says that a device's memory, or the machine's, was not enough."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY)


def is_lost_device(error: BaseException) -> bool:
    """Tell whether torch says that the device is not there any more, or answers no more.

    >>> is_lost_device(torch.AcceleratorError("CUDA error: unspecified launch failure"))
    True
    >>> is_lost_device(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))
    True
    >>> is_lost_device(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    said = str(error)
    if not isinstance(error, RuntimeError) or is_out_of_memory(error) or _FAULT_OF_THE_PROGRAM in said:
        return False
    return isinstance(error, torch.AcceleratorError) or any(w in said for w in (*_LIBRARIES, *_NO_GPU_ANY_MORE))
