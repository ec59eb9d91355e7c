"""How long a round takes on this machine, measured: a few steps of the study's own network on this site's own patients.

The measuring runs in a process of its own, as training does, so that its peak of memory is that of training. A few
patients' images are read and prepared, and stand for the others: a step draws as many as it would of the whole cohort.
What each round pays once, a new process and a first step that warms up, is counted once. What is trained is thrown
away; nothing is kept or charged.
"""

import contextlib
import multiprocessing
import resource
import secrets
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch

from protocol.study import StudySpec
from site_node.cohort.cohort import Cohort, Patient
from site_node.errors import SiteError
from site_node.privacy.noise import NoiseSource
from site_node.training.device import chosen_device
from site_node.training.job import usable_cores
from site_node.training.networks import initial_weights, threads_worth
from site_node.training.patients import prepare_cohort
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.trainer import train

FEWEST_STEPS, MOST_STEPS = 5, 200
ENOUGH_SECONDS = 3.0
"""Steps differ, because each draws its patients by chance: of quick ones many are averaged."""
READ_IMAGES = 16
LONGEST_SECONDS = 120.0
"""Of measured steps; a network so slow is judged by those that were taken by then."""
SECONDS_A_MINUTE = 60
Report = Callable[[str], object]


@dataclass(frozen=True)
class Pace:
    """What was measured, and what follows for a round of the study.

    Units: seconds; `start_seconds` is what the process takes to start, and its first step longer than the others;
        `peak_bytes` the most memory that the measuring process held. The images are prepared once, before the first
        round.
    """

    start_seconds: float
    step_seconds: float
    image_seconds: float
    peak_bytes: int
    device: str
    steps: int
    images: int

    @property
    def round_minutes(self) -> float:
        """Return the minutes of one round, whose training begins in a new process."""
        return (self.start_seconds + self.steps * self.step_seconds) / SECONDS_A_MINUTE

    @property
    def prepare_minutes(self) -> float:
        """Return the minutes in which the images are read and prepared, once."""
        return self.images * self.image_seconds / SECONDS_A_MINUTE


class _EnoughError(Exception):
    """Ends the steps that are measured; never leaves this file."""


def measured_apart(study: StudySpec, cohort: Cohort, threads: int, report: Report) -> Pace | str:
    """Measure in a process of its own; a sentence if that fails. `report` is told how far it is."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_measure_and_send, args=(study, cohort, threads, there, time.monotonic()))
    start_unheeding(child)
    there.close()
    result: Pace | str = "Measuring ended by itself: memory may not suffice."
    try:
        while True:
            kind, value = here.recv()
            if kind == "step":
                report(str(value))
            else:
                result = value
                break
    except EOFError:
        pass
    except BaseException:  # Ctrl-C, or whatever ends the command: nobody listens to the child any more
        child.terminate()
        raise
    finally:
        here.close()
        child.join()
    return result


def start_unheeding(child: BaseProcess) -> None:
    """Start a process to which Ctrl-C at the terminal does nothing, from its first instruction on: its parent ends it.

    A signal that is blocked here stays blocked in what is begun here; one that comes meanwhile is heeded afterwards.
    """
    resource_tracker.ensure_running()  # its first start, within the child's, would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        child.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def measure(study: StudySpec, cohort: Cohort, threads: int, report: Report, began: float | None = None) -> Pace:
    """Measure in this process, which began at that moment of the machine's monotonic clock.

    Raises: PixelsError if an image cannot be read any more; NotFiniteError if training diverges at once.
    """
    torch.set_num_threads(threads_worth(study, min(threads, usable_cores())))
    starting = 0.0 if began is None else time.monotonic() - began
    sample = sample_of(cohort)
    images = sum(len(patient.images) for patient in sample.patients)
    report(f"reading {images} images")
    opened = time.perf_counter()
    prepared = prepare_cohort(study, sample, ["train"], None)["train"]
    reading = time.perf_counter() - opened
    whole = repeated(prepared, len(cohort.of("train")))
    all_images = sum(len(patient.images) for patient in cohort.patients)
    first, *others = timed_steps(study, whole, report)
    mean = statistics.fmean(others or [first])
    return Pace(
        start_seconds=starting + max(0.0, first - mean),
        step_seconds=mean,
        image_seconds=reading / max(1, images),
        peak_bytes=peak_bytes(),
        device=str(chosen_device()),
        steps=study.noised_steps,
        images=all_images,
    )


def sample_of(cohort: Cohort) -> Cohort:
    """Return the first training patients, enough to read some images; of a table all, since its rows are in memory."""
    if cohort.values is not None:
        return cohort
    chosen: list[Patient] = []
    for patient in cohort.of("train"):
        chosen.append(patient)
        if sum(len(one.images) for one in chosen) >= READ_IMAGES:
            break
    return replace(cohort, patients=tuple(chosen), left_out={}, told=None)


def repeated(prepared: PreparedPatients, patients: int) -> PreparedPatients:
    """Return so many patients, these again and again; no image is copied."""
    which = [number % prepared.patients for number in range(patients)]
    images = [prepared.images_of(number) for number in which]
    numbers = np.concatenate(images)
    return replace(
        prepared,
        rows=prepared.rows[numbers],
        targets=prepared.targets[numbers] if len(prepared.targets) else prepared.targets,
        first_image=np.cumsum([0, *(len(own) for own in images)]),
        labels=prepared.labels[which],
        findings=tuple(prepared.findings[number] for number in which) if prepared.findings else (),
        left_out=0,
        told=None,
    )


def timed_steps(study: StudySpec, patients: PreparedPatients, report: Report) -> list[float]:
    """Take some steps of the study's training on patients, and return the seconds of each; what is trained is lost.

    Raises: NotFiniteError if training diverges at once.
    """
    moments: list[float] = [time.perf_counter()]

    def stepped(_: float) -> None:
        moments.append(time.perf_counter())
        taken, elapsed = len(moments) - 1, moments[-1] - moments[0]
        report(f"step {taken}")
        if elapsed > LONGEST_SECONDS or (taken >= FEWEST_STEPS and elapsed > ENOUGH_SECONDS):
            raise _EnoughError

    trial = _with_steps(study)
    noise = NoiseSource(secrets.token_bytes(32), "a measurement", "nothing of it is kept")
    multiplier = None if trial.privacy.epsilon is None or trial.privacy.mechanism != "dp-sgd" else 1.0
    with contextlib.suppress(_EnoughError):
        start = initial_weights(study)
        train(trial, start, patients, noise, noise_multiplier=multiplier, round_number=0, report=stepped)
    return [float(seconds) for seconds in np.diff(moments)]


def _with_steps(study: StudySpec) -> StudySpec:
    """Return the study with so many steps as are measured; those of shared noise cost what private ones do."""
    training = study.training.model_copy(update={"local_steps": MOST_STEPS, "local_epochs": None})
    shared = study.privacy.mechanism == "shared-noise"
    privacy = study.privacy.model_copy(update={"mechanism": "dp-sgd"}) if shared else study.privacy
    return study.model_copy(update={"training": training, "privacy": privacy})


def peak_bytes() -> int:
    """Return the most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _measure_and_send(study: StudySpec, cohort: Cohort, threads: int, there: Connection, began: float) -> None:
    def told(words: str) -> None:
        there.send(("step", words))

    outcome: tuple[str, Any]
    try:
        outcome = ("done", measure(study, cohort, threads, told, began))
    except SiteError as error:
        outcome = ("failed", str(error))
    except Exception as error:  # a foreign exception's text may hold a path or a value of a header
        outcome = ("failed", f"Measuring failed: {type(error).__name__}.")
    there.send(outcome)
    there.close()
