"""Real training jobs that meet trouble once: killed after some optimiser steps, or their GPU's error raised by torch.

What happens, and after how many steps, stands in worker/trouble; the job that reads the file deletes it, so that the
next attempt is left alone. Such a job may spend all its time on checkpoints, so that each step has one. The hooks are
torch's own, over all optimisers and modules of the process.
"""

import math
import os
import signal
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from site_node.settings import SiteSettings
from site_node.training import checkpoints
from site_node.training.job import run_order

LOST = "CUDA error: unspecified launch failure"
TAKEN = "steps_taken"


def plan(settings: SiteSettings, trouble: str, steps: int) -> None:
    """Say what the next job meets after so many optimiser steps."""
    (settings.paths.worker / "trouble").write_text(f"{trouble} {steps}")


def steps_taken(settings: SiteSettings) -> int:
    """Return how many optimiser steps the last job of a plan took, in its first process."""
    return int((settings.paths.worker / TAKEN).read_text())


def run_with_trouble(settings: SiteSettings, task_id: str) -> None:
    """Do an order as a worker's child does; meet the trouble that was planned."""
    planned = settings.paths.worker / "trouble"
    if planned.exists():
        trouble, steps = planned.read_text().split()
        planned.unlink()
        _meet(settings, trouble, int(steps))
    run_order(settings, task_id)


def _meet(settings: SiteSettings, trouble: str, steps: int) -> None:
    taken = [0]
    checkpoints.MOST_SHARE = math.inf

    def after_step(*_: Any) -> None:
        taken[0] += 1
        (settings.paths.worker / TAKEN).write_text(str(taken[0]))
        if trouble == "killed" and taken[0] == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_layer(*_: Any) -> None:
        if trouble == "lost" and taken[0] == steps:
            raise torch.AcceleratorError(LOST)

    register_optimizer_step_post_hook(after_step)
    register_module_forward_pre_hook(before_layer)
