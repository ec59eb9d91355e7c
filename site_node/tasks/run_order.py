"""One order, from queue to candidate: lease, child process, heartbeat, publication. Safe to be called many times.

A redelivered task never trains twice: if the candidate is there it is done, if somebody alive holds the lease it is
theirs, and if the order was taken away there is nothing to do. A failure that may pass (memory, disk, a killed process)
is tried again after a rest, twice; any other is the answer at once.
"""

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from protocol.digest import hex_of
from protocol.messages import Reason
from site_node.candidate import (
    Candidate,
    CohortFigures,
    candidate_folder,
    cohort_path,
    publish,
    read_candidate,
    read_cohort_figures,
    write_candidate,
    write_cohort_figures,
)
from site_node.checkpoint_folders import checkpoint_folder
from site_node.cohort_members import COHORT_SUFFIX, VALUES_SUFFIX, members_path
from site_node.durable import remove, sync_folder
from site_node.errors import DatabaseError, OrderError
from site_node.machine_figures import MachineFigures, machine_path, write_machine_figures
from site_node.memory_shortages import note_shortage
from site_node.orders import WorkOrder, order_path, read_order
from site_node.settings import SitePaths, SiteSettings
from site_node.tasks.child import DISK_WAS_FULL, MEASURING_JOB, TRAINING_JOB, JobProcess
from site_node.tasks.lease import HEARTBEAT_SECONDS, Lease, Leases, holder_name
from site_node.training_hours import may_train

MAX_CRASHES = 2
NOT_STARTED = 71
REASON_OF_EXIT = {-9: Reason.OUT_OF_MEMORY, DISK_WAS_FULL: Reason.DISK_FULL}
MAY_PASS = frozenset({Reason.OUT_OF_MEMORY, Reason.DISK_FULL, Reason.DEVICE_LOST})
"""Failures that another attempt may not meet; a redelivered order draws the same patients and the same noise, from its
last checkpoint on (`training/checkpoints.py`)."""
POLL_SECONDS = 0.1
_NOT_STARTED_REMEDY = "As the worker's user run: python -c 'import site_node.training.job'. Its last line says why."
_DISK_REMEDY = "Make room on the worker's disk, or check its rights; the worker tries again by itself."
_log = structlog.get_logger()


@dataclass(frozen=True)
class Worker:
    """What a job needs of its worker. `stop` is set when the worker is asked to end."""

    settings: SiteSettings
    job: str = TRAINING_JOB
    clock: Callable[[], float] = time.time
    holder: str = field(default_factory=holder_name)
    stop: threading.Event = field(default_factory=threading.Event)

    def leases(self) -> Leases:
        """Open the leases; each thread has its own connection."""
        return Leases(self.settings.paths.jobs, self.holder, self.clock)


def result_exists(paths: SitePaths, order: WorkOrder) -> bool:
    """Tell whether an order's result was handed over."""
    if order.kind == "cohort":
        return cohort_path(paths, order.study_digest).exists()
    if order.kind == "readiness":
        return machine_path(paths, order.study_digest).exists()
    return candidate_folder(paths, order.task_id).exists()


def has_versions(paths: SitePaths, order: WorkOrder) -> bool:
    """Tell whether the versions that an order names are here: the agent fetches them once the gate has let it go."""
    named = [digest for digest in (order.base_blob, order.control_blob) if digest is not None]
    return all((paths.blobs / hex_of(digest)).exists() for digest in named)


def may_begin(worker: Worker, order: WorkOrder) -> bool:
    """Tell whether an order may begin now: the gate lets no training in outside the hours, but one may have queued."""
    return order.kind != "train" or may_train(worker.settings.train_hours, worker.clock())


def work_on(worker: Worker, task_id: str) -> str:
    """Do what a task's order says and return how it went, in a word for the log."""
    paths = worker.settings.paths
    try:
        order = read_order(paths, task_id)
    except OrderError as error:
        _log.error("order_unreadable", task=task_id, why=str(error))
        return "unreadable"
    if order is None:
        return "no order"
    if result_exists(paths, order):
        return "done before"
    if not has_versions(paths, order):
        return "waits for its version"
    if not may_begin(worker, order):
        return "waits for its hours"
    try:
        with closing(worker.leases()) as leases:
            lease = leases.acquire(task_id)
            if lease is None:
                return "held by another, or resting"
            outcome = _work_under(worker, leases, lease, order)
    except (OSError, sqlite3.OperationalError, DatabaseError) as error:
        # Nothing can be written, so that nothing can be answered; the supervisor asks again until it can.
        _log.error("worker_cannot_write", task=task_id, why=type(error).__name__, remedy=_DISK_REMEDY)
        return "not written"
    _log.info("order_ended", task=task_id, outcome=outcome, token=lease.token)
    return outcome


def _work_under(worker: Worker, leases: Leases, lease: Lease, order: WorkOrder) -> str:
    paths = worker.settings.paths
    staging = paths.worker / "staging" / f"{order.task_id}.{lease.token}"
    staged = SitePaths(paths.root, staging)
    _make_empty(staging, staged)
    try:
        code = _watch(worker, leases, lease, order, staging)
        if code is None:
            leases.release(lease)
            return "interrupted"
        failure = _failure(staged, order, code)
        if failure in MAY_PASS or not result_exists(staged, order):
            _make_empty(staging, staged)  # what lies there may be what filled the disk
            if lease.crashes < MAX_CRASHES:
                _make_room(paths, order, failure, lease)
                leases.release(lease, crashed=True)
                _log.warning("order_failed", task=order.task_id, reason=failure, next="it is tried again after a rest")
                return "crashed"
            _give_up(staged, order, failure or Reason.INTERNAL)
        done = leases.publish(lease, lambda: _hand_over(staged, paths, order))
        if done:
            remove(checkpoint_folder(paths, order))
        return "done" if done else "lease lost"
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _make_empty(staging: Path, staged: SitePaths) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    for folder in (staged.candidates, staged.cohorts):
        folder.mkdir(parents=True)


def _make_room(paths: SitePaths, order: WorkOrder, failure: Reason | None, lease: Lease) -> None:
    """Let the next attempt have what this one lacked.

    Before the last one on a disk that stays full the checkpoints go; one that lacked memory is begun in smaller parts.
    """
    if failure is Reason.OUT_OF_MEMORY and order.kind in ("train", "evaluate"):
        note_shortage(checkpoint_folder(paths, order))
    if failure is Reason.DISK_FULL and lease.crashes == MAX_CRASHES - 1:
        remove(checkpoint_folder(paths, order))


def _watch(worker: Worker, leases: Leases, lease: Lease, order: WorkOrder, staging: Path) -> int | None:
    """Run the child with heartbeats; return its exit code (NOT_STARTED if none came to be), or None if it was stopped.

    It is stopped when the worker ends, the lease is lost, or the gate takes the order away (pause, withdrawal,
    cancellation).
    """
    paths = worker.settings.paths
    try:
        job = MEASURING_JOB if order.kind == "readiness" else worker.job
        child = JobProcess(paths.root, staging, order.task_id, job)
    except (EOFError, OSError) as error:  # the fork server died while it imported, or could not be started
        _log.error("job_not_started", task=order.task_id, why=type(error).__name__, remedy=_NOT_STARTED_REMEDY)
        return NOT_STARTED
    beat_at = time.monotonic()
    try:
        while (code := child.wait(POLL_SECONDS)) is None:
            if worker.stop.is_set():
                return None
            if time.monotonic() - beat_at < HEARTBEAT_SECONDS:
                continue
            beat_at = time.monotonic()
            if not leases.beat(lease) or not order_path(paths, order.task_id).exists():
                return None
        return code
    finally:
        child.stop()


def _failure(staged: SitePaths, order: WorkOrder, code: int) -> Reason | None:
    """Return why the child has failed, as it said itself or as its exit tells; None if it has not, or nobody knows."""
    if not result_exists(staged, order):
        return REASON_OF_EXIT.get(code)
    if order.kind == "readiness":
        return None
    if order.kind == "cohort":
        figures = read_cohort_figures(staged, order.study_digest)
        return None if figures is None else figures.problem
    candidate = read_candidate(staged, order.task_id)
    return candidate.reason if candidate is not None and candidate.kind == "failure" else None


def _give_up(staged: SitePaths, order: WorkOrder, reason: Reason) -> None:
    if order.kind == "readiness":  # nothing was seen
        figures = {"study_digest": order.study_digest, "number": order.recount}
        write_machine_figures(staged, MachineFigures.model_validate(figures))
        return
    if order.kind == "cohort":
        write_cohort_figures(
            staged, CohortFigures(study_digest=order.study_digest, problem=reason, recount=order.recount)
        )
        return
    write_candidate(
        staged, Candidate(task_id=order.task_id, task_digest=order.task_digest, kind="failure", reason=reason)
    )


def _hand_over(staged: SitePaths, paths: SitePaths, order: WorkOrder) -> None:
    if order.kind == "readiness":
        machine_path(staged, order.study_digest).replace(machine_path(paths, order.study_digest))
        sync_folder(paths.cohorts)
        return
    if order.kind == "cohort":
        _put_in_place(staged, paths, order.study_digest)
        if (members := members_path(staged, order.study_digest)).exists():
            members.replace(members_path(paths, order.study_digest))  # first: the figures say that all is there
            sync_folder(paths.cohorts)
        cohort_path(staged, order.study_digest).replace(cohort_path(paths, order.study_digest))
        sync_folder(paths.cohorts)
        return
    publish(candidate_folder(staged, order.task_id), candidate_folder(paths, order.task_id))


def _put_in_place(staged: SitePaths, paths: SitePaths, study_digest: str) -> None:
    """Move a counted cohort to where the study's tasks read it: its rows first, as it was frozen."""
    paths.frozen_cohorts.mkdir(mode=0o700, parents=True, exist_ok=True)
    for suffix in (VALUES_SUFFIX, COHORT_SUFFIX):
        name = f"{hex_of(study_digest)}{suffix}"
        if (counted := staged.counted_cohorts / name).exists():
            counted.replace(paths.frozen_cohorts / name)
    sync_folder(paths.frozen_cohorts)
