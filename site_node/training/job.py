"""One job of the worker: from the gate's order to a candidate. Any failure becomes a candidate too, with its reason.

The same code runs in a Celery task's child process and, in simulation, as a call.
"""

import errno
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
import torch

from protocol.digest import canonical_json, digest_of, digest_of_bytes
from protocol.errors import DigestError, ProtocolError
from protocol.held_out import counts_field
from protocol.messages import Activity, Reason
from protocol.noised_counts import told_count
from protocol.site_rates import QualityFigures, released
from protocol.study import StudySpec, parse_study
from protocol.study_parts import HeldOutSplit
from protocol.tensors import Weights, encode_weights
from site_node.candidate import Candidate, CohortFigures, write_candidate, write_cohort_figures
from site_node.checkpoint_folders import checkpoint_folder
from site_node.cohort.cohort import Cohort, Patient, build_cohort
from site_node.cohort.fallen_out import NOT_TRAINING, fallen_out
from site_node.cohort.identities import AS_THEY_ARE, Identities
from site_node.cohort.opted_out import without_opted_out
from site_node.cohort.roll import Roll
from site_node.cohort.table_cohort import build_table_cohort
from site_node.cohort_members import CohortMembers, pseudonym_key, read_spent, write_members
from site_node.durable import remove, unfinished_beside
from site_node.errors import OrderError, SettingsError, SiteError, TooFewPatientsError, TrainingProcessLostError
from site_node.opt_outs import load_identities
from site_node.orders import WorkOrder, read_order
from site_node.privacy.noise import NoiseSource
from site_node.settings import SiteSettings
from site_node.site_secrets import read_noise_key, split_key
from site_node.training.checkpoints import Checkpoints, task_checkpoints
from site_node.training.device import is_lost_device, is_out_of_memory
from site_node.training.evaluation import evaluate
from site_node.training.frozen_cohort import approved_cohort, freeze_cohort
from site_node.training.local_round import Round, train_locally
from site_node.training.local_state import LocalState
from site_node.training.networks import initial_weights, threads_worth
from site_node.training.objectives.imbalance import with_class_weights
from site_node.training.patients import prepare_cohort
from site_node.training.personal import judged_weights, kept_tensors
from site_node.training.pixel_cache import pixel_cache
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.processes import Together, processes_for, training_together
from site_node.training.round_output import round_output
from site_node.training.task_device import TaskDevice
from site_node.training.used_patients import use_that_leaves, used_patients
from site_node.update.handover import hand_over_payload
from site_node.update.steps import weights_payload
from site_node.update.versions import read_version
from site_node.work_receipts import WorkReceipt, write_receipt

PROGRESS_SECONDS = 0.5
WHERE_TO_LOOK = "wardround site receipts, wardround site budget"
HELD_OUT: tuple[HeldOutSplit, ...] = ("validation", "test")

log = structlog.get_logger()


@dataclass(frozen=True)
class Job:
    """An order, the study it names, where this site keeps things, and who its patients were when the job began."""

    settings: SiteSettings
    order: WorkOrder
    study: StudySpec
    identities: Identities = AS_THEY_ARE

    def cohort(self) -> Cohort:
        """Return the study's cohort, frozen when it was counted, without those who have opted out since."""
        key = split_key(read_noise_key(self.settings.paths.noise_key))
        return without_opted_out(self.frozen(), self.identities, key)

    def frozen(self) -> Cohort:
        """Return the study's cohort as it was approved, with those who have opted out since.

        Raises: CohortError if the frozen one is another.
        """
        key, order = split_key(read_noise_key(self.settings.paths.noise_key)), self.order
        return approved_cohort(self.settings.paths.frozen_cohorts, order.study_digest, order.cohort_digest, key)

    def noise(self, cohort: Cohort) -> NoiseSource:
        """Return the task's secret streams."""
        return NoiseSource(
            read_noise_key(self.settings.paths.noise_key), self.order.task_digest, cohort.manifest_digest
        )

    def base(self) -> Weights:
        """Return the version to start from, its bytes checked against the digest.

        Raises: BaseUnavailableError if it is missing or damaged.
        """
        return read_version(self.settings.paths, self.order.base_blob)

    def control(self) -> Weights | None:
        """Return SCAFFOLD's control variate of all sites, where the task names one.

        Raises: BaseUnavailableError if it is missing or damaged.
        """
        digest = self.order.control_blob
        return None if digest is None else read_version(self.settings.paths, digest)

    @property
    def state(self) -> LocalState:
        """Return what is kept here between the study's rounds, as this task's round sees it."""
        return LocalState(self.settings.paths.local_state, self.order.study_digest, self.order.round)

    @property
    def device(self) -> TaskDevice:
        """Return what this task is trained on."""
        return TaskDevice(checkpoint_folder(self.settings.paths, self.order), self.settings.cpu_if_gpu_is_lost)

    def checkpoints(self, cohort: Cohort, *, writes: bool) -> Checkpoints:
        """Return where this task's training goes on if it was killed."""
        return task_checkpoints(self.settings, self.order, cohort.manifest_digest, writes=writes)


def run_order(settings: SiteSettings, task_id: str) -> None:
    """Do what the gate ordered and hand the candidate over. Without an order nothing is done.

    Guarantee: a job that was begun ends with a candidate (or a cohort's figures), whatever fails; the reason in it is
        of the fixed vocabulary, and the log tells the site's administrator more, without patient data. A worker's job
        ends as one that crashed where a process that trains with it was lost: another attempt may not meet that.
    """
    order = read_order(settings.paths, task_id)
    if order is None:
        log.warning("no order for this task; nothing done", task=task_id)
        return
    started, name = time.monotonic(), ""
    try:
        study = _study_of(order)
        name = study.name
        torch.set_num_threads(threads_worth(study, min(settings.threads, usable_cores())))
        receipt: dict[str, Any] = _run(Job(settings, order, study, load_identities(settings)))
    except Exception as error:
        _log_failure(settings, order, error)
        if isinstance(error, TrainingProcessLostError) and settings.paths.staging is not None:
            raise SystemExit(1) from None  # a crash: the worker tries again
        _hand_over_failure(settings, order, _reason_of(error))
        receipt = {"failed": True, "reason": _reason_of(error).value}
    if settings.paths.staging is None:  # else the worker does, when it has published what was handed over
        remove(checkpoint_folder(settings.paths, order))
    seconds = round(time.monotonic() - started, 3)
    _keep_receipt(settings, order, {"study": name, "seconds": seconds, **receipt})
    log.info("order done", task=task_id, kind=order.kind, seconds=seconds)


def usable_cores() -> int:
    """Return how many cores this process may run on. More threads than these spin against each other."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(job: Job) -> dict[str, Any]:
    kinds: dict[str, Callable[[Job], dict[str, Any]]] = {
        "cohort": _count_cohort,
        "initialise": _initialise,
        "train": _train,
        "evaluate": _evaluate,
    }
    return kinds[job.order.kind](job)


def _count_cohort(job: Job) -> dict[str, int]:
    version_zero = encode_weights(initial_weights(job.study))  # an unknown network is refused before anybody approves
    kept_tensors(job.study)  # and so are tensors to keep that it does not have
    paths = job.settings.paths
    noise_key = read_noise_key(paths.noise_key)
    spent = read_spent(paths, job.order.task_id, job.order.spent_digest)
    roll = Roll(spent, pseudonym_key(noise_key), job.identities)
    try:
        cohort = _cohort_of(job, split_key(noise_key), roll.may_take_part)
    except TooFewPatientsError:
        if not roll.has_left_out:
            raise
        _hand_over_members(job, roll.members(job.order.study_digest, None), problem=Reason.BUDGET_SPENT)
        return {"patients": 0, "images": 0}
    cohort = replace(cohort, told=_told(job, cohort))
    freeze_cohort(paths.counted_cohorts, job.order.study_digest, cohort)
    training = cohort.of("train")
    if not roll.has_left_out:  # else what is told could be compared with an earlier study's numbers
        _tell_who_does_not_train(job, cohort)
        _tell_what_fell_out(job, cohort)
    _hand_over_members(
        job,
        roll.members(job.order.study_digest, cohort),
        training_patients=cohort.training_figure,
        count_epsilon=job.study.privacy.count_epsilon,
        training_images=sum(len(patient.images) for patient in training),
        held_out_patients=cohort.public_figure(*HELD_OUT),
        manifest_digest=cohort.manifest_digest,
        version_zero_digest=digest_of_bytes(version_zero),
        quality=_quality_of(job, cohort),
    )
    return {"patients": len(cohort.patients), "images": sum(len(p.images) for p in cohort.patients)}


def _cohort_of(job: Job, split_key: bytes, may_take_part: Callable[[Patient], bool]) -> Cohort:
    settings = job.settings
    if job.study.kind == "tabular":
        return build_table_cohort(settings.table, job.study, split_key, may_take_part, job.identities)
    places = settings.paths.index, settings.labels
    return build_cohort(*places, job.study, split_key, may_take_part, job.identities, settings.labelling)


def _told(job: Job, cohort: Cohort) -> int | None:
    """Return the noised number of the patients who train, 0 if nobody does; None where the study takes the exact one.

    Who is left out for a spent budget is not counted: nothing that leaves may depend on whom nothing is charged.
    """
    epsilon, exact = job.study.privacy.count_epsilon, len(cohort.of("train"))
    if epsilon is None or not exact:
        return None if epsilon is None else 0
    noise_of = _figures_noise(job, cohort, (exact,)).counts.two_sided_geometric
    return told_count(exact, job.study.cohort.minimum_patients, epsilon, noise_of)


def _figures_noise(job: Job, cohort: Cohort, exact: tuple[int, ...]) -> NoiseSource:
    """Return the noise of figures that leave once for the study.

    Counted again, the same figures have the same noise, so nothing can be averaged out; others have noise of their own,
    also the same patients' in another study: with equal noise, equal figures would tell that two groups are the same.
    """
    counted = digest_of({"cohort": cohort.manifest_digest, "counts": list(exact)})
    return NoiseSource(read_noise_key(job.settings.paths.noise_key), job.order.task_digest, counted)


def _quality_of(job: Job, cohort: Cohort) -> QualityFigures | None:
    """Return the figures that the study reads, noised as it says; None where it reads none or nobody trains."""
    terms, training = job.study.site_rates, cohort.training_figure
    if not terms.reads_quality or terms.quality_epsilon is None or not training:
        return None
    exact = cohort.quality_counts()
    source = _figures_noise(job, cohort, exact)
    return released(exact, training, terms.quality_epsilon, source.quality.two_sided_geometric)


def _hand_over_members(job: Job, members: CohortMembers, **figures: Any) -> None:
    digest = write_members(job.settings.paths, members)  # the figures follow: they say that the count is done
    public = CohortFigures(
        study_digest=job.order.study_digest, members_digest=digest, recount=job.order.recount, **figures
    )
    write_cohort_figures(job.settings.paths, public)


def _tell_who_does_not_train(job: Job, cohort: Cohort) -> None:
    for reason, remedy in NOT_TRAINING.items():
        if cohort.dropped.get(reason):  # how many is not logged: it is a figure about patients
            why = f"{reason.removeprefix('patient: ')}. {remedy}"
            log.warning("this site does not train", site=job.settings.name, study=job.study.name, why=why)


def _tell_what_fell_out(job: Job, cohort: Cohort) -> None:
    for found in fallen_out(cohort.dropped, job.study.cohort.minimum_patients, cohort.remedies):
        say = log.warning if found.is_fault else log.info
        say("left out of the study", site=job.settings.name, study=job.study.name, why=found.why)


def _initialise(job: Job) -> dict[str, int]:
    payload = weights_payload(job.study, initial_weights(job.study))
    hand_over_payload(job.settings.paths, job.order, payload)
    return {"patients": 0, "images": 0}


def _train(job: Job) -> dict[str, Any]:
    cohort, base = job.cohort(), job.base()
    patients = prepare_cohort(job.study, cohort, ["train"], pixel_cache(job.settings)).get("train")
    if patients is None:
        raise TooFewPatientsError("This site has no patient to train on.", "It can still evaluate.")
    report = _reporter(job, Activity.TRAINING)
    weighted = with_class_weights(job.study, job.order.class_weights)
    training = Round(weighted, base, patients, job.noise(cohort), job.order, report, job.state, job.control())
    training = replace(training, checkpoints=job.checkpoints(cohort, writes=True))
    size = processes_for(job.study, job.settings.processes)
    values = sum(array.size for array in base.values())
    arguments = [job.settings, job.order, job.identities]
    others = training_together(size, values, help_with_round, arguments, job.settings.processes_over)
    with job.device.chosen(), others as together:
        payload, uncut = round_output(replace(training, together=together))
    used = use_that_leaves(job.study, patients, job.noise(cohort))
    hand_over_payload(job.settings.paths, job.order, payload, uncut, used)
    return _used(job, cohort, {"train": patients})


def help_with_round(together: Together, settings: SiteSettings, order: WorkOrder, identities: Identities) -> None:
    """Train a round with others, as one that is not the first: nothing is kept, reported or handed over."""
    job = Job(settings, order, _study_of(order), identities)
    cohort = job.cohort()
    patients = prepare_cohort(job.study, cohort, ["train"], pixel_cache(settings))["train"]
    state = replace(job.state, keeps=False)
    noise, control, checkpoints = job.noise(cohort), job.control(), job.checkpoints(cohort, writes=False)
    weighted = with_class_weights(job.study, order.class_weights)
    training = Round(weighted, job.base(), patients, noise, order, lambda _: None, state, control, together)
    with job.device.as_recorded():
        train_locally(replace(training, checkpoints=checkpoints))


def _evaluate(job: Job) -> dict[str, Any]:
    order, cohort, judged = job.order, job.cohort(), judged_weights(job.study, job.base(), job.state)
    report = _reporter(job, Activity.EVALUATING)
    frozen = job.frozen()
    approved = [split for split in HELD_OUT if split in job.study.evaluation.splits and frozen.of(split)]
    splits = [split for split in approved if cohort.of(split)]
    prepared = prepare_cohort(job.study, cohort, splits, pixel_cache(job.settings)) if splits else {}
    held_out = {split: prepared[split] for split in splits}
    counts: dict[str, Any] = {}
    with job.device.as_recorded():
        counts[counts_field(job.study)] = evaluate(job.study, judged, held_out, job.noise(cohort), approved)
    report(1.0)
    candidate = Candidate(task_id=order.task_id, task_digest=order.task_digest, kind="evaluation", **counts)
    write_candidate(job.settings.paths, candidate)
    return _used(job, cohort, held_out)


def _study_of(order: WorkOrder) -> StudySpec:
    study = parse_study(order.study)
    if study.digest != order.study_digest:
        raise OrderError("The order's study is not the one of its digest.", "Restart the gate; it writes it again.")
    return study


def _used(job: Job, cohort: Cohort, prepared: Mapping[Any, PreparedPatients]) -> dict[str, Any]:
    used = used_patients(cohort, prepared)
    if 2 * used["patients"] < used["matched"]:  # no number: what is left out for its budget is a figure about patients
        log.warning("this task used less than half of the approved cohort", study=job.study.name, look=WHERE_TO_LOOK)
    return used


def _keep_receipt(settings: SiteSettings, order: WorkOrder, used: Mapping[str, Any]) -> None:
    named = {"task_id": order.task_id, "study_digest": order.study_digest, "round": order.round, "kind": order.kind}
    receipt = WorkReceipt.model_validate({**named, "at": time.time(), **used})
    try:
        write_receipt(settings.paths, receipt, read_noise_key(settings.paths.noise_key))
    except SettingsError as error:  # without the site's secret nothing was used, and nothing can be signed
        log.error("no receipt", task=order.task_id, why=error.message)


def _hand_over_failure(settings: SiteSettings, order: WorkOrder, reason: Reason) -> None:
    if order.kind == "cohort":
        write_cohort_figures(
            settings.paths, CohortFigures(study_digest=order.study_digest, problem=reason, recount=order.recount)
        )
        return
    failure = Candidate(task_id=order.task_id, task_digest=order.task_digest, kind="failure", reason=reason)
    write_candidate(settings.paths, failure)


def _reason_of(error: Exception) -> Reason:
    if isinstance(error, SiteError):
        return error.reason
    if isinstance(error, MemoryError) or is_out_of_memory(error):
        return Reason.OUT_OF_MEMORY
    if is_lost_device(error):
        return Reason.DEVICE_LOST
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Reason.DISK_FULL
    if isinstance(error, ProtocolError | DigestError):
        return Reason.BAD_TASK
    return Reason.INTERNAL


def _log_failure(settings: SiteSettings, order: WorkOrder, error: Exception) -> None:
    # A foreign exception's text may hold a path or a header's value: only its kind and our lines are logged.
    said = str(error) if isinstance(error, SiteError | ProtocolError) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames][-6:]
    log.error("order failed", site=settings.name, task=order.task_id, kind=order.kind, error=said, where=where)


def _reporter(job: Job, activity: Activity) -> Callable[[float], None]:
    path = job.settings.paths.progress / f"{job.order.task_id}.json"
    last, told = [float("-inf")], [0.0]

    def report(fraction: float) -> None:
        now = time.monotonic()
        if now - last[0] < PROGRESS_SECONDS and fraction < 1.0 and told[0] > 0:  # one that goes on says so at once
            return
        last[0], told[0] = now, fraction
        _write(path, {"activity": activity.value, "fraction": round(fraction, 4)})

    report(0.0)
    return report


def _write(path: Path, document: dict[str, object]) -> None:
    # Whole or not at all for a reader, but not synced: losing it in a power cut loses nothing.
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_beside(path)
    unfinished.write_bytes(canonical_json(document))
    unfinished.replace(path)
