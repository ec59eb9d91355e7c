"""torch's own collectives between the processes of one machine: gloo, or NCCL where each process has a GPU of its own.

The one module of all that reads patients which opens sockets, and only where site.yaml asks for it (`processes_over`).
They are of the loopback interface, which leads nowhere: in the worker's network namespace (docs/operations.md) nobody
else is there. Processes find each other by a file in a folder that only their user may enter, not at an address. What
goes over is not encrypted, and gloo asks nobody who they are: where a worker has no namespace of its own, other users
of the machine could listen in, which shared memory does not let them.
Source: torch.distributed, "Backends" and "Shared file-system initialization".
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, distributed

from site_node.errors import SettingsError
from site_node.training.device import is_lost_device

LONGEST_STEP = timedelta(days=1)
ONLY_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "=lo", "NCCL_IB_DISABLE": "1"}
_FIRST = 0


@dataclass(frozen=True)
class Collectives:
    """One process's place in a group of torch's. `device`: where the group's tensors lie."""

    rank: int
    device: torch.device

    def summed(self, part: Tensor) -> Tensor:
        """Give a part, and return the sum; see `carriers.Carrier`."""
        total = part.detach().to(self.device, torch.float64, copy=True)  # reduce uses the others' as its own memory
        with _others_may_be_gone():
            distributed.reduce(total, dst=_FIRST)
            self._wait()
        return total.to(part.device, part.dtype) if self.rank == _FIRST else part

    def told(self, made: Tensor | None, like: Tensor) -> Tensor:
        """Return what the first process made; see `carriers.Carrier`."""
        told = torch.empty(like.shape, device=self.device) if made is None else made.to(self.device).contiguous()
        with _others_may_be_gone():
            distributed.broadcast(told, src=_FIRST)
            self._wait()
        return told.to(like.device)

    def _wait(self) -> None:
        if self.device.type == "cuda":  # NCCL only queues; whoever is gone is noticed here
            torch.cuda.synchronize(self.device)


@contextmanager
def collectives(backend: Literal["gloo", "nccl"], rank: int, size: int, meeting_point: Path) -> Iterator[Collectives]:
    """Join a group of so many processes and yield this one's place in it; all wait until all are there.

    `meeting_point` is a file that is not there yet, in a folder of this user alone.
    """
    before = {name: os.environ.get(name) for name in ONLY_LOOPBACK}
    os.environ.update(ONLY_LOOPBACK)
    try:
        with _others_may_be_gone():
            distributed.init_process_group(
                backend, init_method=meeting_point.as_uri(), rank=rank, world_size=size, timeout=LONGEST_STEP
            )
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    try:
        yield Collectives(rank, torch.device("cuda" if backend == "nccl" else "cpu"))
    finally:
        distributed.destroy_process_group()


def check_backend(backend: Literal["gloo", "nccl"], size: int) -> None:
    """Refuse a backend that this machine does not have, or has too few GPUs for.

    Raises: SettingsError.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if backend == "nccl" and (not distributed.is_nccl_available() or gpus < size):
        raise SettingsError(
            f"processes_over: nccl needs a GPU for each of the {size} processes; this machine shows {gpus}.",
            "Lower `processes` in site.yaml, or set processes_over: shared-memory.",
        )
    if backend == "gloo" and not distributed.is_gloo_available():
        raise SettingsError("This torch was built without gloo.", "Set processes_over: shared-memory in site.yaml.")


@contextmanager
def _others_may_be_gone() -> Iterator[None]:
    """Say that another process is gone as a pipe says it; a device that is lost stays one."""
    try:
        yield
    except RuntimeError as error:
        if is_lost_device(error):
            raise
        raise ConnectionResetError from None
