"""Four states of a site, kept apart: configured, registered, idle, training.

A site that is registered and idle is well; one that is idle because it is paused, or has no index, only looks like it.
"""

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from site_node.doctor.finding import Finding, fine, warning
from site_node.governance.holding import is_draining
from site_node.governance.records import is_paused, open_records, task_records
from site_node.settings import SiteSettings
from site_node.tasks.lease import EXPIRY_SECONDS
from site_node.training_hours import may_train


@dataclass(frozen=True)
class Work:
    """What the gate has given to the worker and not got back, by kind, and whether it is held."""

    accepted: tuple[str, ...]
    waiting: int
    is_paused: bool
    is_draining: bool = False
    trains_now: bool = True


def examine_gate(settings: SiteSettings) -> list[Finding]:
    """Say what the gate has under way."""
    if not settings.paths.gate_database.exists():
        return [fine("work", "Idle: no study was ever proposed here.")]
    with closing(open_records(settings.paths)) as database:
        accepted = tuple(str(record.task.kind) for record in task_records(database, "accepted"))
        waiting = len(task_records(database, "waiting"))
        trains_now = may_train(settings.train_hours, time.time())
        return [verdict_on_work(Work(accepted, waiting, is_paused(database), is_draining(database), trains_now))]


def verdict_on_work(work: Work) -> Finding:
    """Say whether the site trains, evaluates, waits or is idle. Pure.

    >>> verdict_on_work(Work(("train", "evaluate"), 0, False)).says
    'Training: 1 evaluate, 1 train under way, 0 wait.'
    """
    kinds = ", ".join(f"{work.accepted.count(kind)} {kind}" for kind in sorted(set(work.accepted)))
    if work.is_paused:
        return warning("work", "Paused: nothing runs and nothing leaves.", "Go on with `wardround site resume DIR`.")
    if work.is_draining:
        says = f"Draining: {kinds or 'no task'} under way; nothing new begins."
        return warning("work", says, "Go on with `wardround site resume DIR`.")
    if not work.accepted:
        hours = "" if work.trains_now else " Trainings wait for train_hours."
        return fine("work", f"Idle: no task is under way, {work.waiting} wait.{hours}")
    word = "Training" if "train" in work.accepted else "Evaluating" if "evaluate" in work.accepted else "At work"
    return fine("work", f"{word}: {kinds} under way, {work.waiting} wait.")


def examine_worker(settings: SiteSettings) -> list[Finding]:
    """Say whether the worker has an index, and what runs under a lease now."""
    paths = settings.paths
    findings = [verdict_on_index(paths.index.exists(), needs_images=bool(settings.images))]
    return [*findings, verdict_on_leases(_live_leases(paths.jobs))]


def verdict_on_index(is_there: bool, *, needs_images: bool) -> Finding:
    """Say whether images were indexed. Pure."""
    if needs_images and not is_there:
        return warning("index", "No image was ever indexed: every cohort is empty.", "wardround site index DIR")
    return fine("index", "There is an index." if is_there else "This site has a table and no images.")


def verdict_on_leases(live: int) -> Finding:
    """Say how many jobs run. Pure."""
    return fine("jobs", f"{live} job(s) run in workers of this site." if live else "No job runs in a worker now.")


def _live_leases(path: Path) -> int:
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        since = time.time() - EXPIRY_SECONDS
        row = database.execute("SELECT COUNT(*) FROM leases WHERE held = 1 AND beat_at > ?", (since,)).fetchone()
        return int(row[0])
