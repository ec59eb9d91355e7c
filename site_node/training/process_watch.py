"""Whether the processes of a training are still there while torch's collectives wait for them.

Torch waits in the rendezvous for whoever is not there yet, and NCCL for a peer that has died, as long as a step may
take. So a thread listens to each pipe, which ends with the process at its other end, however that ends. A process whose
first one is gone ends at once. The first one fails with its next movement; if it hangs in one, it ends too, after
`HANGING_SECONDS` in which torch may notice by itself, and the worker tries again from the last checkpoint.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog

from site_node.training.carriers import Pipe
from site_node.training.process_loss import FAILED, OTHERS_GONE

HANGING_SECONDS = 5.0
POLL_SECONDS = 0.1
_log = structlog.get_logger()


class Watch:
    """One process's look at the others. `rank`: its own; the first one has a pipe to each, the others one to it."""

    def __init__(self, rank: int, pipes: tuple[Pipe, ...]) -> None:
        self._rank = rank
        self._pipes = pipes
        self._lost = threading.Event()
        self._over = threading.Event()
        self._waits_since: float | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Watch while the block runs. Whoever leaves it without an error tells so: its end is no loss."""
        threads = [threading.Thread(target=self._look, args=(pipe,), daemon=True) for pipe in self._pipes]
        for thread in threads:
            thread.start()
        try:
            yield
            if self._rank > 0:
                with suppress(BrokenPipeError, ConnectionResetError):  # the first is done, and gone
                    self._pipes[0].send(True)
        finally:
            self._over.set()
            for thread in threads:  # before anybody closes what they listen to
                thread.join()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for the others within the block.

        Raises: ConnectionResetError if one is gone already.
        """
        if self._lost.is_set():
            raise ConnectionResetError
        with self.leaving():
            yield

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Leave the others within the block, also if one is gone; torch may wait for it there too."""
        self._waits_since = time.monotonic()
        try:
            yield
        finally:
            self._waits_since = None

    def _look(self, pipe: Pipe) -> None:
        try:
            while not pipe.poll(POLL_SECONDS):
                if self._over.is_set():
                    return
            pipe.recv()  # it has done its part
        except (EOFError, OSError):
            if self._rank > 0 and not self._over.is_set():
                os._exit(OTHERS_GONE)  # nobody takes what this process computes
            self._lost.set()
            self._end_if_hanging(time.monotonic())

    def _end_if_hanging(self, lost_at: float) -> None:
        while not self._over.wait(POLL_SECONDS):
            since = self._waits_since
            if since is not None and time.monotonic() - max(since, lost_at) > HANGING_SECONDS:
                _log.error("training_process_lost", means="This one waited for it in vain, and ends too.")
                os._exit(FAILED)
