"""One round's training in several processes of one machine: each takes a part of every step's drawn patients.

Every process draws the same patients from the same secret streams, computes the (clipped) gradients of its own part,
and the first process adds the sums. It alone adds the noise, once, and tells the others the gradient that all then
follow; so all hold the same weights after every step. The mechanism, and what it costs, is that of one process: the
sum is over the same drawn patients, the noise is the same draw. Results differ by the rounding of the sum.

It is data-parallel training as torch's DistributedDataParallel does it, with a reduction of our own: that one averages
gradients of equal parts, where DP-SGD needs the sum of clipped ones and noise on the whole. What carries the values is
chosen in site.yaml (`carriers.py`): memory that the processes share, or torch's collectives. A process whose first one
has ended ends with its step or before; the first fails with the reason of one that has ended (`process_loss.py`).
Source: Li et al. 2020, arXiv:2006.15704 (DistributedDataParallel).
"""

import mmap
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import structlog
import torch
from torch import Tensor

from protocol.study import StudySpec
from site_node.errors import SiteError
from site_node.privacy.patient_batch import PatientBatch
from site_node.training.carriers import Carrier, Over, Pipe, SharedMemory
from site_node.training.loopback import check_backend, collectives
from site_node.training.objectives.choice import objective_of
from site_node.training.process_loss import FAILED, code_of, loss_of
from site_node.training.process_watch import Watch

ENDING_SECONDS = 5.0
FLOAT64_BYTES = 8
_log = structlog.get_logger()


@dataclass(frozen=True)
class Together:
    """One of the processes that train a round together; alone by default."""

    rank: int = 0
    size: int = 1
    carrier: Carrier | None = None

    def share_of(self, batch: PatientBatch) -> PatientBatch:
        """Return this process's part of a step's drawn patients: neighbours, as many as the others' or one more."""
        if self.size == 1:
            return batch
        first, last = (batch.patients * edge // self.size for edge in (self.rank, self.rank + 1))
        images = slice(int(batch.counts[:first].sum()), int(batch.counts[:last].sum()))
        return PatientBatch(batch.images[images], batch.targets[images], batch.counts[first:last])

    def summed(self, part: Tensor) -> Tensor:
        """Return the sum of all processes' parts, in the first; in the others their own."""
        return part if self.carrier is None else self.carrier.summed(part)

    def told(self, make: Callable[[], Tensor], like: Tensor) -> Tensor:
        """Return what the first process makes, in every process.

        Shapes: result as `like`, float32.
        """
        if self.carrier is None:
            return make()
        return self.carrier.told(make() if self.rank == 0 else None, like)

    def agree(self, number: int) -> bool:
        """Tell whether every process says the same number; all are told the same answer."""
        if self.size == 1:
            return True
        said = torch.tensor([number, number**2], dtype=torch.float64)
        total = self.summed(said)  # equal numbers, and no others, have no spread

        def agreement() -> Tensor:
            agreed = self.size * float(total[1]) == float(total[0]) ** 2
            return torch.full((2,), float(agreed))

        return bool(self.told(agreement, like=said)[0])


ALONE = Together()


def processes_for(study: StudySpec, wanted: int) -> int:
    """Return in how many processes a study's rounds are trained, of those that the site gives.

    One where a step is not a sum over patients: Cox's loss compares all patients of a step, and BatchNorm normalises
    with the statistics of whoever is in the same process. One also where the hub takes the steps (`shared-noise`) or
    the update is released as a whole (`site-level`).
    """
    return wanted if is_sum_over_patients(study) and study.privacy.mechanism == "dp-sgd" else 1


def is_sum_over_patients(study: StudySpec) -> bool:
    """Tell whether a step's gradient is the sum of what each patient gives by itself."""
    return not objective_of(study).compares_patients and study.network.normalisation != "batch"


@contextmanager
def training_together(
    size: int,
    values: int,
    help_in: Callable[..., None],
    arguments: Sequence[Any],
    over: Over = "shared-memory",
) -> Iterator[Together]:
    """Start `size` - 1 further processes and yield this one's place among them; a gradient has at most so many values.

    Each calls `help_in(together, *arguments)`: a function of a module, with what can be pickled.
    Raises: what `loss_of` makes of one that ended; SettingsError if this machine has not what carries the values.
    """
    if size == 1:
        yield ALONE
        return
    helpers: list[BaseProcess] = []
    pipes: list[Pipe] = []
    made: AbstractContextManager[_Means]
    made = _SharedMeans.made(size, values) if over == "shared-memory" else _met(over, size)
    with made as means, ExitStack() as ends:
        ends.callback(_end, helpers, pipes)
        try:
            context = multiprocessing.get_context("spawn")  # a fork would copy the locks of a torch that has computed
            for rank in range(1, size):
                ours, theirs = context.Pipe()
                place = (theirs, means, rank, size, torch.get_num_threads())
                helpers.append(context.Process(target=_help, args=(*place, help_in, tuple(arguments))))
                helpers[-1].start()
                theirs.close()
                pipes.append(ours)
            with means.joined(0, size, tuple(pipes)) as carrier:
                yield Together(0, size, carrier)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise loss_of(helpers) from None


class _Means(Protocol):
    """What the processes need to carry values; a spawned one is given it."""

    def joined(self, rank: int, size: int, pipes: tuple[Pipe, ...]) -> AbstractContextManager[Carrier]:
        """Yield one process's place."""


@dataclass(frozen=True)
class _SharedMeans:
    memory: "_Memory"
    values: int

    @classmethod
    @contextmanager
    def made(cls, size: int, values: int) -> Iterator["_SharedMeans"]:
        with _memory() as memory:
            os.ftruncate(memory.descriptor, size * values * FLOAT64_BYTES)
            yield cls(memory, values)

    @contextmanager
    def joined(self, rank: int, size: int, pipes: tuple[Pipe, ...]) -> Iterator[Carrier]:
        shared = mmap.mmap(self.memory.descriptor, size * self.values * FLOAT64_BYTES)
        yield SharedMemory(rank, np.frombuffer(shared, np.float64).reshape(size, self.values), pipes)


@dataclass(frozen=True)
class _Meeting:
    """Memory without a name, in which torch lets processes find each other: nothing of it stays when all have died."""

    backend: Literal["gloo", "nccl"]
    memory: "_Memory"

    @contextmanager
    def joined(self, rank: int, size: int, pipes: tuple[Pipe, ...]) -> Iterator[Carrier]:
        for pipe in pipes:  # one that ends while it starts is noticed here: torch would wait for it
            pipe.recv() if rank == 0 else pipe.send(True)
        watch, point = Watch(rank, pipes), Path(f"/proc/self/fd/{self.memory.descriptor}")
        with watch.kept(), collectives(self.backend, rank, size, point, watch) as carrier:
            yield carrier


@contextmanager
def _met(backend: Literal["gloo", "nccl"], size: int) -> Iterator[_Meeting]:
    check_backend(backend, size)
    with _memory() as memory:
        yield _Meeting(backend, memory)


class _Memory:
    """A file descriptor that a spawned process inherits."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _detached, (DupFd(self.descriptor),)


def _detached(duplicate: Any) -> _Memory:
    return _Memory(duplicate.detach())


@contextmanager
def _memory() -> Iterator[_Memory]:
    memory = os.memfd_create("wardround")
    try:
        yield _Memory(memory)
    finally:
        os.close(memory)


def _help(
    pipe: Pipe,
    means: _Means,
    rank: int,
    size: int,
    threads: int,
    help_in: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(threads)
    try:
        take_gpu(rank)
        with means.joined(rank, size, (pipe,)) as carrier:
            help_in(Together(rank, size, carrier), *arguments)
    except Exception as error:
        code = code_of(error)
        if code == FAILED and not isinstance(error, SiteError):  # whose words the first process says: it meets it too
            _log.error("training_process_failed", rank=rank, error=type(error).__name__)  # its text may hold a path
        os._exit(code)


def gpu_of(rank: int, gpus: int) -> int:
    """Return which of the GPUs that these processes are shown is a process's own; they share where there are fewer.

    >>> [gpu_of(rank, 4) for rank in range(4)], [gpu_of(rank, 2) for rank in range(4)]
    ([0, 1, 2, 3], [0, 1, 0, 1])
    """
    return rank % gpus


def take_gpu(rank: int) -> None:
    """Let a further process compute on a GPU of its own, if any is shown; the first has the first."""
    if torch.cuda.is_available():
        torch.cuda.set_device(gpu_of(rank, torch.cuda.device_count()))


def _end(helpers: Sequence[BaseProcess], pipes: Sequence[Pipe]) -> None:
    for pipe in pipes:
        pipe.close()
    for helper in helpers:
        helper.join(ENDING_SECONDS)
        helper.kill()
        helper.join()
