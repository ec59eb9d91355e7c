"""The pace of a study: measured on some of the patients, told for all of them."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from site_node.cohort.cohort import build_cohort
from site_node.cohort.index import index_folder
from site_node.readiness.pace import (
    FEWEST_STEPS,
    READ_IMAGES,
    Pace,
    measure,
    measured_apart,
    repeated,
    sample_of,
    start_unheeding,
)
from site_node.training.patients import prepare_cohort
from tests.fakes.dicom import make_hospital
from tests.site_node.training.examples import make_patients, make_study


def test_a_round_pays_its_start_once_and_each_step() -> None:
    pace = Pace(30.0, 0.5, 0.25, 1 << 20, "cpu", steps=60, images=240)
    assert (pace.round_minutes, pace.prepare_minutes) == (1.0, 1.0)


def test_some_patients_stand_for_all_of_them_and_no_image_is_copied() -> None:
    few = make_patients([1, 3])
    many = repeated(few, 5)
    assert (many.patients, many.first_image.tolist()) == (5, [0, 1, 4, 5, 8, 9])
    assert many.rows.tolist() == [*few.rows[:4], *few.rows[:4], few.rows[0]]
    assert many.targets.tolist() == [*few.targets[:4], *few.targets[:4], few.targets[0]]
    assert many.images is few.images


@pytest.mark.parametrize("epsilon", [None, 8.0])
def test_steps_are_taken_on_a_sample_and_told_for_the_whole_cohort(tmp_path: Path, epsilon: float | None) -> None:
    hospital = make_hospital(tmp_path / "images", 24, split=lambda n: "test" if n % 6 == 0 else "train")
    index_folder([hospital.folder], tmp_path / "index.sqlite")
    study = make_study(epsilon=epsilon, local_steps=40)
    cohort = build_cohort(tmp_path / "index.sqlite", hospital.labels, study, bytes(32))
    assert sum(len(patient.images) for patient in sample_of(cohort).patients) == READ_IMAGES
    said: list[str] = []
    pace = measure(study, cohort, 1, said.append)
    assert (pace.steps, pace.images) == (40, 48)
    assert pace.step_seconds > 0
    assert pace.image_seconds > 0
    assert said[0] == f"reading {READ_IMAGES} images"
    assert len(said) > FEWEST_STEPS
    assert prepare_cohort(study, sample_of(cohort), ["train"], None)["train"].patients == READ_IMAGES // 2


@pytest.mark.parametrize("start", [start_unheeding, BaseProcess.start])
def test_ctrl_c_does_nothing_to_a_process_that_is_started_so(
    start: Callable[[BaseProcess], None], capfd: pytest.CaptureFixture[str]
) -> None:
    child = multiprocessing.get_context("spawn").Process(target=signal.raise_signal, args=(signal.SIGINT,))
    start(child)
    child.join()
    heeded = start is not start_unheeding
    assert (child.exitcode != 0) is heeded
    assert ("Traceback" in capfd.readouterr().err) is heeded
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_who_measures_is_ended_with_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hospital = make_hospital(tmp_path / "images", 24, split=lambda n: "test" if n % 6 == 0 else "train")
    index_folder([hospital.folder], tmp_path / "index.sqlite")
    study = make_study(epsilon=8.0, local_steps=40)
    cohort = build_cohort(tmp_path / "index.sqlite", hospital.labels, study, bytes(32))

    def interrupt(words: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured_apart(study, cohort, 1, interrupt)
    assert multiprocessing.active_children() == []
    assert "Traceback" not in capfd.readouterr().err
