"""What a task is trained on: a GPU as long as it is there; the CPU after it was lost only if the site says so.

One small file beside the task's checkpoints, device.json: that the task was begun on a GPU, and how often it was lost.
A GPU that is lost ends the process (its CUDA context cannot be used any more); the worker tries again in a fresh one,
which goes on from the checkpoint. On a CPU the same patients, noise and steps take far longer, which would hold up
other tasks unseen; so it needs `cpu_if_gpu_is_lost` in site.yaml.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from site_node.durable import write_durably
from site_node.errors import DeviceLostError
from site_node.memory_shortages import shortages_of
from site_node.training.device import chosen_device, is_lost_device, on_cpu
from site_node.training.parts import begun_smaller

RECORD = "device.json"
LOSSES_UNTIL_CPU = 2
OWNER_ONLY = 0o600
_log = structlog.get_logger()


@dataclass(frozen=True)
class TaskDevice:
    """The device of one task. `folder`: of its checkpoints; `may_use_cpu`: what site.yaml says."""

    folder: Path
    may_use_cpu: bool

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """Train within the block on the task's device, and remember if it was lost there.

        Raises: DeviceLostError if it is lost, before or within the block.
        """
        on_gpu, losses = self._record()
        has_gpu = chosen_device().type == "cuda"
        if on_gpu and not has_gpu and not self.may_use_cpu:
            raise DeviceLostError(
                "The GPU that this task was begun on is not there any more.",
                "Is it on the bus, and the driver loaded (nvidia-smi)? Or set cpu_if_gpu_is_lost in site.yaml.",
            )
        if has_gpu and not on_gpu:
            self._keep(losses)
        try:
            with self.as_recorded():
                yield
        except RuntimeError as error:
            if not is_lost_device(error):
                raise
            self._keep(losses + 1)
            raise DeviceLostError(
                "The GPU was lost while it trained.", "See dmesg or nvidia-smi; the task goes on in another process."
            ) from None

    @contextmanager
    def as_recorded(self) -> Iterator[None]:
        """Compute within the block on the task's device, in parts that its memory has not been too small for yet."""
        on_gpu, losses = self._record()
        falls_back = self.may_use_cpu and on_gpu and losses >= LOSSES_UNTIL_CPU
        with on_cpu(falls_back), begun_smaller(shortages_of(self.folder)):
            if on_gpu and chosen_device().type == "cpu":
                _log.warning("gpu_lost", means="The task goes on on the CPU, as site.yaml allows; it takes longer.")
            yield

    def _record(self) -> tuple[bool, int]:
        """Return whether the task was begun on a GPU, and how often one was lost."""
        try:
            losses = json.loads((self.folder / RECORD).read_bytes())["losses"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False, 0
        return True, int(losses)

    def _keep(self, losses: int) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self.folder / RECORD, json.dumps({"losses": losses}).encode(), OWNER_ONLY)
        except OSError as error:
            _log.warning("device_not_recorded", why=error.strerror or type(error).__name__)
