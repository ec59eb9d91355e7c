"""Jobs in place of training, for tests of what runs them. Each start leaves a mark in worker/starts."""

import os
import time

from site_node.candidate import Candidate, CohortFigures, write_candidate, write_cohort_figures
from site_node.orders import read_order
from site_node.settings import SiteSettings


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


def slow(settings: SiteSettings, task_id: str) -> None:
    """Hand over a result once the file worker/go exists."""
    _start(settings, task_id)
    while not (settings.paths.worker / "go").exists():
        time.sleep(0.05)
    quick(settings, task_id)


def crashing(settings: SiteSettings, task_id: str) -> None:
    """End without a result."""
    _start(settings, task_id)
    os._exit(3)
