"""One round's training in several processes of one machine: each takes a part of every step's drawn patients.

Every process draws the same patients from the same secret streams, computes the (clipped) gradients of its own part,
and the first process adds the sums. It alone adds the noise, once, and tells the others the gradient that all then
follow; so all hold the same weights after every step. The mechanism, and what it costs, is that of one process: the
sum is over the same drawn patients, the noise is the same draw. Results differ by the rounding of the sum.

It is data-parallel training as torch's DistributedDataParallel does it, with a reduction of our own: that one averages
gradients of equal parts, where DP-SGD needs the sum of clipped ones and noise on the whole; and it speaks over sockets,
which nothing that reads patients may open. Here values lie in memory that the processes share and that has no name,
and pipes say when. A process whose first one has ended, however, ends with its step.
Source: Li et al. 2020, arXiv:2006.15704 (DistributedDataParallel).
"""

import mmap
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from typing import Any, Protocol

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from protocol.study import StudySpec
from site_node.errors import SiteError, TrainingProcessLostError
from site_node.privacy.patient_batch import PatientBatch
from site_node.training.objectives.choice import objective_of

FAILED = 1
KILLED = -9
ENDING_SECONDS = 5.0
FLOAT64_BYTES = 8
_log = structlog.get_logger()


class Pipe(Protocol):
    """One end of a pipe between two processes."""

    def send(self, obj: object, /) -> None:
        """Tell the other end."""

    def recv(self) -> object:
        """Wait for the other end. Raises: EOFError if it is gone."""

    def close(self) -> None:
        """Close this end."""


@dataclass(frozen=True)
class Together:
    """One of the processes that train a round together; alone by default.

    Shapes: shared (process, value) float64, of which the first row is for what the first process tells.
    """

    rank: int = 0
    size: int = 1
    shared: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    pipes: tuple[Pipe, ...] = ()

    def share_of(self, batch: PatientBatch) -> PatientBatch:
        """Return this process's part of a step's drawn patients: neighbours, as many as the others' or one more."""
        if self.size == 1:
            return batch
        first, last = (batch.patients * edge // self.size for edge in (self.rank, self.rank + 1))
        images = slice(int(batch.counts[:first].sum()), int(batch.counts[:last].sum()))
        return PatientBatch(batch.images[images], batch.targets[images], batch.counts[first:last])

    def summed(self, part: Tensor) -> Tensor:
        """Return the sum of all processes' parts, in the first; in the others their own."""
        if self.size == 1:
            return part
        if self.rank > 0:
            self.shared[self.rank, : part.numel()] = part.detach().cpu().numpy()
            self.pipes[0].send(True)
            return part
        total = part.to("cpu", torch.float64)
        for rank, pipe in enumerate(self.pipes, start=1):
            pipe.recv()
            total = total + torch.from_numpy(self.shared[rank, : part.numel()])
        return total.to(part.device, part.dtype)

    def told(self, make: Callable[[], Tensor], like: Tensor) -> Tensor:
        """Return what the first process makes, in every process.

        Shapes: result as `like`, float32.
        """
        if self.size == 1:
            return make()
        row = self.shared[0, : like.numel()]
        if self.rank > 0:
            self.pipes[0].recv()
            return torch.from_numpy(row.astype(np.float32)).to(like.device)
        made = make()
        row[:] = made.cpu().numpy()  # the others have read the last one: they have sent their sums since
        for pipe in self.pipes:
            pipe.send(True)
        return made


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
    size: int, values: int, help_in: Callable[..., None], arguments: Sequence[Any]
) -> Iterator[Together]:
    """Start `size` - 1 further processes and yield this one's place among them; a gradient has at most so many values.

    Each calls `help_in(together, *arguments)`: a function of a module, with what can be pickled.
    Raises: TrainingProcessLostError if one ended; MemoryError if one was killed, which the system does for memory.
    """
    if size == 1:
        yield ALONE
        return
    memory = os.memfd_create("wardround")
    helpers: list[BaseProcess] = []
    pipes: list[Pipe] = []
    try:
        os.ftruncate(memory, size * values * FLOAT64_BYTES)
        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of a torch that has computed
        for rank in range(1, size):
            ours, theirs = context.Pipe()
            place = (theirs, _Memory(memory), rank, size, values, torch.get_num_threads())
            helpers.append(context.Process(target=_help, args=(*place, help_in, tuple(arguments))))
            helpers[-1].start()
            theirs.close()
            pipes.append(ours)
        yield Together(0, size, _mapped(memory, size, values), tuple(pipes))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise _loss(helpers) from None
    finally:
        os.close(memory)
        _end(helpers, pipes)


class _Memory:
    """A file descriptor that a spawned process inherits."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _detached, (DupFd(self.descriptor),)


def _detached(duplicate: Any) -> _Memory:
    return _Memory(duplicate.detach())


def _mapped(descriptor: int, size: int, values: int) -> NDArray[np.float64]:
    shared = mmap.mmap(descriptor, size * values * FLOAT64_BYTES)
    return np.frombuffer(shared, np.float64).reshape(size, values)


def _help(
    pipe: Pipe,
    memory: _Memory,
    rank: int,
    size: int,
    values: int,
    threads: int,
    help_in: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(rank % torch.cuda.device_count())
    try:
        help_in(Together(rank, size, _mapped(memory.descriptor, size, values), (pipe,)), *arguments)
    except (SiteError, EOFError, BrokenPipeError):
        os._exit(FAILED)  # the first process fails in the same way and says so, or it is gone
    except Exception as error:
        _log.error("training_process_failed", rank=rank, error=type(error).__name__)  # its text may hold a path
        os._exit(FAILED)


def _end(helpers: Sequence[BaseProcess], pipes: Sequence[Pipe]) -> None:
    for pipe in pipes:
        pipe.close()
    for helper in helpers:
        helper.join(ENDING_SECONDS)
        helper.kill()
        helper.join()


def _loss(helpers: Sequence[BaseProcess]) -> Exception:
    for helper in helpers:
        helper.join(ENDING_SECONDS)
    if any(helper.exitcode == KILLED for helper in helpers):
        return MemoryError()
    return TrainingProcessLostError(
        "One of the processes that train together was lost.", "Look for its error above; or set processes: 1."
    )
