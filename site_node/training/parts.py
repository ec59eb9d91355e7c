"""How many images go through a network at once, where memory may not suffice for what a study allows.

A step's (clipped) sum over its patients is the sum over parts of them: in smaller parts it is the same up to rounding,
and so is what differential privacy says of it. A sum that ran out of memory is thrown away whole and begun anew, before
any noise is drawn: no patient is added twice. What was learned holds for the further steps of the round.
Where the system killed the process for its memory, the task's next attempt begins with half as many.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import structlog
import torch

from site_node.training.device import is_out_of_memory

Made = TypeVar("Made")
_SHORTAGES: ContextVar[int] = ContextVar("shortages", default=0)
_log = structlog.get_logger()


@contextmanager
def begun_smaller(shortages: int) -> Iterator[None]:
    """Within the block begin with parts halved so many times: that many attempts ended for want of memory."""
    if shortages:
        _log.warning("memory_was_short", means="The same patients are computed in smaller parts than before.")
    before = _SHORTAGES.set(shortages)
    try:
        yield
    finally:
        _SHORTAGES.reset(before)


def has_run_short() -> bool:
    """Tell whether an attempt before this one ended for want of memory."""
    return _SHORTAGES.get() > 0


class Parts:
    """A number of images that is halved as often as memory does not suffice."""

    def __init__(self, images_at_once: int, *, may_be_smaller: bool = True) -> None:
        self.images_at_once = max(1, images_at_once >> _SHORTAGES.get()) if may_be_smaller else images_at_once
        self._may_be_smaller = may_be_smaller
        self._has_said = False

    def computed(self, compute: Callable[[int], Made], images: int, least: int = 1) -> Made:
        """Return what `compute` makes with so many images at once; it begins anew with half as many if it has to.

        `images` is how many there are, `least` how many cannot be parted.
        Raises: what `compute` raised (`is_out_of_memory`) if memory does not suffice for these.
        """
        while True:
            try:
                return compute(self.images_at_once)
            except (RuntimeError, MemoryError) as error:
                is_too_much = is_out_of_memory(error)
                if not is_too_much or not self._may_be_smaller or min(self.images_at_once, images) <= least:
                    raise
            self._halve(images)  # after the exception is gone: its frames hold the tensors

    def _halve(self, images: int) -> None:
        self.images_at_once = min(self.images_at_once, images) // 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self._has_said:
            _log.warning("memory_is_short", means="The same patients are computed in smaller parts; it takes longer.")
            self._has_said = True
