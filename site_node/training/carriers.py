"""What carries values between the processes that train a round together: two movements, and who makes them.

    shared-memory   memory that the processes share and that has no name; pipes say when (here)
    gloo, nccl      torch's own collectives over this machine's loopback (`loopback.py`)

Each step moves twice: all parts to the first process, which adds them, and what it made of the sum to all others.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Over = Literal["shared-memory", "gloo", "nccl"]


class Pipe(Protocol):
    """One end of a pipe between two processes."""

    def send(self, obj: object, /) -> None:
        """Tell the other end."""

    def recv(self) -> object:
        """Wait for the other end. Raises: EOFError if it is gone."""

    def poll(self, timeout: float, /) -> bool:
        """Wait so many seconds, and tell whether `recv` has something, be it the other's end."""

    def close(self) -> None:
        """Close this end."""


class Carrier(Protocol):
    """Both movements, as one of the processes makes them; all make the same ones in the same order.

    Raises: EOFError, BrokenPipeError or ConnectionResetError if another process is gone.
    """

    def summed(self, part: Tensor) -> Tensor:
        """Give a part, and return the sum of all in the first process; in the others their own."""

    def told(self, made: Tensor | None, like: Tensor) -> Tensor:
        """Return what the first process made; the others make nothing. Shapes: made, result as `like`, float32."""


@dataclass(frozen=True)
class SharedMemory:
    """One process's place in memory that all share.

    Shapes: shared (process, value) float64, of which the first row is for what the first process tells.
    """

    rank: int
    shared: NDArray[np.float64]
    pipes: tuple[Pipe, ...]

    def summed(self, part: Tensor) -> Tensor:
        """Give a part, and return the sum; see `Carrier`."""
        if self.rank > 0:
            self.shared[self.rank, : part.numel()] = part.detach().cpu().numpy()
            self.pipes[0].send(True)
            return part
        total = part.to("cpu", torch.float64)
        for rank, pipe in enumerate(self.pipes, start=1):
            pipe.recv()
            total = total + torch.from_numpy(self.shared[rank, : part.numel()])
        return total.to(part.device, part.dtype)

    def told(self, made: Tensor | None, like: Tensor) -> Tensor:
        """Return what the first process made; see `Carrier`."""
        row = self.shared[0, : like.numel()]
        if made is None:
            self.pipes[0].recv()
            return torch.from_numpy(row.astype(np.float32)).to(like.device)
        row[:] = made.cpu().numpy()  # the others have read the last one: they have sent their sums since
        for pipe in self.pipes:
            pipe.send(True)
        return made
