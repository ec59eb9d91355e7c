"""Patients whom their spent budget keeps out: the figure that is told, and that divides, counts them too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protocol.tensors import Weights
from site_node.cohort.cohort import Cohort, ImageRef, Patient
from site_node.training.networks import initial_weights
from site_node.training.patients import prepare_cohort
from site_node.training.trainer import train
from site_node.training.transforms import Picture
from tests.site_node.training.examples import make_noise, make_patients, make_study

STUDY = make_study(sampling_rate=0.5, local_steps=1, learning_rate=1.0)


def moved(left_out: int) -> Weights:
    patients = replace(make_patients([1, 2] * 4), left_out=left_out)
    start = initial_weights(STUDY)
    trained = train(STUDY, start, patients, make_noise(), noise_multiplier=1.0, round_number=1)
    return {name: trained[name] - start[name] for name in start}


def test_a_step_is_divided_by_the_figure_that_the_site_tells() -> None:
    """Eight train and eight more are left out: the same noised sum over 0.5 x 16 instead of 0.5 x 8."""
    alone, with_others = moved(0), moved(8)
    for name in alone:
        assert with_others[name] == pytest.approx(alone[name] / 2, rel=1e-3, abs=1e-6)


def patient(key: str, split: str) -> Patient:
    image = ImageRef(Path("none.dcm"), f"1.{key}", 1)
    return Patient(key, (image,), 1, "train" if split == "train" else "test")


def test_the_figures_of_a_cohort_count_who_is_left_out_unless_nobody_else_is_there() -> None:
    patients = (patient("1", "train"), patient("2", "train"), patient("3", "test"))
    cohort = Cohort(patients, "sha256:" + "c" * 64, {}, {"train": 5, "validation": 2})
    assert cohort.public_figure("train") == 7
    assert cohort.public_figure("validation", "test") == 3
    assert cohort.public_figure("validation") == 0


def test_the_prepared_patients_know_the_figure_of_their_split() -> None:
    def read(_: ImageRef) -> Picture:
        return np.zeros((16, 16), np.float32)

    cohort = Cohort((patient("1", "train"), patient("2", "test")), "sha256:" + "c" * 64, {}, {"train": 5})
    prepared = prepare_cohort(make_study(), cohort, ["train", "test"], None, read=read)
    assert (prepared["train"].patients, prepared["train"].public_figure) == (1, 6)
    assert (prepared["test"].patients, prepared["test"].public_figure) == (1, 1)
