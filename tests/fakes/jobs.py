"""Jobs in place of training, for tests of what runs them. Each start leaves a mark in worker/starts."""

import errno
import os
import signal
import sys
import time

from protocol.messages import Reason
from site_node.candidate import Candidate, CohortFigures, write_candidate, write_cohort_figures
from site_node.machine_figures import MachineFigures, write_machine_figures
from site_node.orders import read_order
from site_node.settings import SiteSettings
from site_node.tasks.child import RULES


def _start(settings: SiteSettings, task_id: str) -> None:
    folder = settings.paths.worker / "starts"
    folder.mkdir(exist_ok=True)
    (folder / f"{task_id}.{os.getpid()}").touch()


def quick(settings: SiteSettings, task_id: str) -> None:
    """Hand over a result at once."""
    _start(settings, task_id)
    order = read_order(settings.paths, task_id)
    assert order is not None
    if order.kind == "cohort":
        write_cohort_figures(settings.paths, CohortFigures(study_digest=order.study_digest, training_patients=7))
        return
    candidate = Candidate(task_id=task_id, task_digest=order.task_digest, kind="update", steps=["difference"])
    write_candidate(settings.paths, candidate, b"payload")


def quick_where_the_rules_are_loaded(settings: SiteSettings, task_id: str) -> None:
    """Hand over a result at once if a study can be parsed without importing its rules first."""
    if RULES in sys.modules:
        quick(settings, task_id)


def measuring(settings: SiteSettings, task_id: str) -> None:
    """Hand over a machine's figures at once."""
    _start(settings, task_id)
    order = read_order(settings.paths, task_id)
    assert order is not None
    write_machine_figures(settings.paths, MachineFigures(study_digest=order.study_digest, number=1, device="cpu"))


def slow(settings: SiteSettings, task_id: str) -> None:
    """Hand over a result once the file worker/go exists."""
    _start(settings, task_id)
    while not (settings.paths.worker / "go").exists():
        time.sleep(0.05)
    quick(settings, task_id)


def slow_on_its_gpu(settings: SiteSettings, task_id: str) -> None:
    """Say which GPUs it is shown, and hand over a result once the file worker/go exists."""
    shown = settings.paths.worker / "shown"
    shown.mkdir(exist_ok=True)
    (shown / f"{task_id}.{os.environ['CUDA_VISIBLE_DEVICES']}").touch()
    slow(settings, task_id)


def crashing(settings: SiteSettings, task_id: str) -> None:
    """End without a result."""
    _start(settings, task_id)
    os._exit(3)


def killed(settings: SiteSettings, task_id: str) -> None:
    """End as by the kernel, when the memory of the machine is spent."""
    _start(settings, task_id)
    os.kill(os.getpid(), signal.SIGKILL)


def without_memory(settings: SiteSettings, task_id: str) -> None:
    """Fail, and say that the memory was not enough."""
    _fail(settings, task_id, Reason.OUT_OF_MEMORY)


def without_disk(settings: SiteSettings, task_id: str) -> None:
    """Fail, and say that the disk was full."""
    _fail(settings, task_id, Reason.DISK_FULL)


def without_disk_for_its_reason(settings: SiteSettings, task_id: str) -> None:
    """Fail on a disk that has no room for a reason either."""
    _start(settings, task_id)
    raise OSError(errno.ENOSPC, "the disk is full")


def diverging(settings: SiteSettings, task_id: str) -> None:
    """Fail, and say that training diverged."""
    _fail(settings, task_id, Reason.NOT_FINITE)


def writing_two_megabytes(settings: SiteSettings, task_id: str) -> None:
    """Hand over a result of two megabytes."""
    _start(settings, task_id)
    order = read_order(settings.paths, task_id)
    assert order is not None
    candidate = Candidate(task_id=task_id, task_digest=order.task_digest, kind="update", steps=["difference"])
    write_candidate(settings.paths, candidate, bytes(2 << 20))


def _fail(settings: SiteSettings, task_id: str, reason: Reason) -> None:
    _start(settings, task_id)
    order = read_order(settings.paths, task_id)
    assert order is not None
    if order.kind == "cohort":
        write_cohort_figures(settings.paths, CohortFigures(study_digest=order.study_digest, problem=reason))
        return
    candidate = Candidate(task_id=task_id, task_digest=order.task_digest, kind="failure", reason=reason)
    write_candidate(settings.paths, candidate)
