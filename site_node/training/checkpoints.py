"""A round's training as it stood after some step, so that one that is killed goes on there and not at its beginning.

One folder for each task under SITE/worker/checkpoints, erased when the task has ended (`checkpoint_folders.py`):

    <study's digits>/<round>.<task>/round.sealed       the round's own training
                                    personal.sealed    Ditto's personal model, trained after it
                                    device.json        what it is trained on (`task_device.py`)

A checkpoint holds weights and running statistics, the optimiser's state, how many steps were taken, how many bytes were
drawn of each secret stream, and how many images memory allowed at once. What an algorithm adds (SCAFFOLD's c - c_i,
Ditto's pull, FedBN's own tensors) is the same in all steps and is read anew; its digest is part of what the checkpoint
belongs to, beside task, cohort, pass, starting weights and the software. A checkpoint of anything else is not opened.

Privacy. Going on draws the noise and the patients of the next step from the same streams at the same place, so that
the result is that of a training which nobody killed, to the bit on one machine (in smaller parts, where the process was
killed for its memory, to rounding); it is released once and was charged once. With DP the weights are made of noised
sums alone, but the places in the streams tell how many patients and images were drawn, and without DP the weights hold
more: so a checkpoint is always sealed, as prepared images are.
"""

import errno
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from protocol.digest import digest_of
from site_node.checkpoint_folders import SUFFIX, checkpoint_folder
from site_node.errors import CacheError
from site_node.orders import WorkOrder
from site_node.settings import SiteSettings
from site_node.training.checkpoint_file import open_tensors, seal_tensors
from site_node.training.pixel_cache import pixel_cache
from site_node.training.prepared_masks import VERSION as MASK_VERSION
from site_node.training.stepwise import VERSION as STEP_VERSION
from site_node.training.training_state import TrainingState
from site_node.training.transforms import VERSION
from site_node.training.volume_picture import VERSION as VOLUME_VERSION

MOST_SHARE = 0.05
"""Of a training's time that is spent on writing checkpoints; where writing is slow, they are fewer."""
_log = structlog.get_logger()


@dataclass
class Checkpoints:
    """The checkpoints of one task. `seconds`: how long one works until the next is written; infinite: none is.

    Of several processes that train together the first one writes (`writes`); all read.
    """

    folder: Path
    key: Callable[[], bytes]
    belongs_to: Mapping[str, str]
    seconds: float
    clock: Callable[[], float] = time.monotonic
    writes: bool = True
    _due: float = field(init=False)
    _has_warned: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._due = self.clock() + self.seconds

    def of_pass(self, name: str, **further: str) -> "PassCheckpoint":
        """Return the checkpoint of one pass of the training, which also belongs to these further digests."""
        return PassCheckpoint(self, name, digest_of({**self.belongs_to, "pass": name, **further}))

    def write(self, path: Path, belongs_to: str, state: Callable[[], TrainingState]) -> None:
        """Write a state if one is due. A disk that is full or gone stops nothing, and is told once."""
        began = self.clock()
        if not self.writes or began < self._due:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            taken = state()
            self._check_room(taken)
            numbers: dict[str, Any] = {"step": taken.step, "images_at_once": taken.images_at_once}
            seal_tensors(path, self.key(), belongs_to, {**numbers, "positions": dict(taken.positions)}, taken.tensors)
        except OSError as error:
            self._warn(error)
        now = self.clock()
        self._due = now + max(self.seconds, (now - began) / MOST_SHARE)

    def _check_room(self, state: TrainingState) -> None:
        """Raise OSError where a checkpoint would leave no room for the update that follows."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in state.tensors.values())
        if shutil.disk_usage(self.folder).free < 2 * size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            why = error.strerror or type(error).__name__
            _log.warning("no_checkpoint", why=why, means="Training goes on; killed, it goes on from an earlier step.")
            self._has_warned = True


@dataclass(frozen=True)
class PassCheckpoint:
    """The newest checkpoint of one pass over a round's steps."""

    checkpoints: Checkpoints
    name: str
    belongs_to: str

    @property
    def path(self) -> Path:
        """Return where it lies."""
        return self.checkpoints.folder / f"{self.name}{SUFFIX}"

    def found(self) -> TrainingState | None:
        """Return the state to go on from; None if there is none of this training."""
        if not math.isfinite(self.checkpoints.seconds) or not self.path.exists():
            return None
        try:
            numbers, tensors = open_tensors(self.path, self.checkpoints.key(), self.belongs_to)
        except FileNotFoundError:
            return None
        except (CacheError, OSError):
            _log.warning("checkpoint_not_used", why="It is damaged or of another training, which begins anew.")
            return None
        return TrainingState(numbers["step"], numbers["images_at_once"], numbers["positions"], tensors)

    def after(self, state: Callable[[], TrainingState]) -> None:
        """Keep the state after a step, if a checkpoint is due."""
        self.checkpoints.write(self.path, self.belongs_to, state)


def task_checkpoints(settings: SiteSettings, order: WorkOrder, cohort_digest: str, *, writes: bool) -> Checkpoints:
    """Return the checkpoints of an order's training over this cohort; of several processes only one `writes`."""
    return Checkpoints(
        checkpoint_folder(settings.paths, order),
        pixel_cache(settings).key,
        {"task": order.task_digest, "study": order.study_digest, "cohort": cohort_digest, "software": software()},
        settings.checkpoint_seconds,
        writes=writes,
    )


def software() -> str:
    """Return which software's steps a checkpoint holds: another's may differ in the last bit, or in more."""
    versions = [f"{name} {version(name)}" for name in ("wardround", "torch", "monai", "numpy")]
    return "; ".join([*versions, f"images {VERSION}.{MASK_VERSION}.{VOLUME_VERSION}.{STEP_VERSION}"])
