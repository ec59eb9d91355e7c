"""torch's own collectives between the processes of one machine: gloo, or NCCL where each process has a GPU of its own.

The one module of all that reads patients which opens sockets, and only where site.yaml asks for it (`processes_over`).
They are of the loopback interface, which leads nowhere: in the worker's network namespace (docs/operations.md) nobody
else is there. Processes find each other by memory without a name that all inherit, not at an address. What goes over
is not encrypted, and gloo asks nobody who they are: where a worker has no namespace of its own, other users of the
machine could listen in, which shared memory does not let them.
Source: torch.distributed, "Backends" and "Shared file-system initialization".
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import structlog
import torch
from torch import Tensor, distributed

from site_node.errors import SettingsError
from site_node.training.device import is_lost_device, is_out_of_memory
from site_node.training.process_watch import Watch

LONGEST_STEP = timedelta(days=1)
LONGEST_WORDS = 200
ONLY_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "=lo", "NCCL_IB_DISABLE": "1"}
_FIRST = 0
_log = structlog.get_logger()


@dataclass(frozen=True)
class Collectives:
    """One process's place in a group of torch's. `device`: where the group's tensors lie; `watch`: on the others."""

    rank: int
    device: torch.device
    watch: Watch

    def summed(self, part: Tensor) -> Tensor:
        """Give a part, and return the sum; see `carriers.Carrier`."""
        total = part.detach().to(self.device, torch.float64, copy=True)  # reduce uses the others' as its own memory
        with self.watch.waiting(), _others_may_be_gone():
            distributed.reduce(total, dst=_FIRST)
            self._wait()
        return total.to(part.device, part.dtype) if self.rank == _FIRST else part

    def told(self, made: Tensor | None, like: Tensor) -> Tensor:
        """Return what the first process made; see `carriers.Carrier`."""
        told = torch.empty(like.shape, device=self.device) if made is None else made.to(self.device).contiguous()
        with self.watch.waiting(), _others_may_be_gone():
            distributed.broadcast(told, src=_FIRST)
            self._wait()
        return told.to(like.device)

    def _wait(self) -> None:
        if self.device.type == "cuda":  # NCCL only queues; for whoever is gone it waits here, and the watch ends that
            torch.cuda.synchronize(self.device)


@contextmanager
def collectives(
    backend: Literal["gloo", "nccl"], rank: int, size: int, meeting_point: Path, watch: Watch
) -> Iterator[Collectives]:
    """Join a group of so many processes and yield this one's place in it; all wait until all are there.

    `meeting_point` is an empty file that all see and nobody else.
    """
    before = {name: os.environ.get(name) for name in ONLY_LOOPBACK}
    os.environ.update(ONLY_LOOPBACK)
    try:
        with watch.waiting(), _others_may_be_gone():
            distributed.init_process_group(
                backend, init_method=meeting_point.as_uri(), rank=rank, world_size=size, timeout=LONGEST_STEP
            )
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    try:
        yield Collectives(rank, torch.device("cuda" if backend == "nccl" else "cpu"), watch)
    finally:
        with watch.leaving():
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
    """Say that another process is gone as a pipe says it; a device that is lost, or full, stays one."""
    try:
        yield
    except RuntimeError as error:
        if is_lost_device(error) or is_out_of_memory(error):
            raise
        said = next(iter(str(error).splitlines()), "")[:LONGEST_WORDS]  # of sockets; torch tells no value of a tensor
        _log.warning("collective_failed", error=type(error).__name__, said=said)
        raise ConnectionResetError from None
