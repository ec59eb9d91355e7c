"""Of whom a task was made: patients and images matched, used and skipped, by reason; and the number that leaves."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.study import StudySpec, parse_study
from site_node.cohort.cohort import Cohort, ImageRef, Patient
from site_node.cohort.contents import UNDECODABLE
from site_node.cohort.identities import Identities
from site_node.cohort.labels import CONTRADICTION
from site_node.cohort.matching import UNLABELLED
from site_node.cohort.opted_out import without_opted_out
from site_node.privacy.noise import NoiseSource
from site_node.training.used_patients import use_that_leaves, used_patients
from site_node.work_receipts import Skipped, SkippedNumbers

SPLIT_KEY = b"s" * 32


def patient(number: int, images: int) -> Patient:
    refs = tuple(ImageRef(Path("a.dcm"), f"1.2.{number}.{image}", 0) for image in range(images))
    return Patient(f"P{number}", refs, 0, "train")


def prepared(cohort: Cohort) -> Any:
    own = cohort.of("train")
    rows = [image for one in own for image in one.images]
    return {"train": SimpleNamespace(patients=len(own), rows=rows)}


@pytest.fixture
def cohort() -> Cohort:
    """Five patients with one image, two with three, and two more who match but have spent their budget."""
    patients = tuple(patient(number, 1 if number < 5 else 3) for number in range(7))
    dropped = {UNDECODABLE: 4, CONTRADICTION: 1, UNLABELLED: 2, "patient: of whom nobody asks": 9}
    return Cohort(patients, "sha256:" + "0" * 64, dropped=dropped, left_out={"train": 2})


def test_everybody_who_may_train_is_used_and_a_spent_budget_is_a_reason(cohort: Cohort) -> None:
    used = used_patients(cohort, prepared(cohort))
    assert (used["matched"], used["patients"], used["images_matched"], used["images"]) == (9, 7, 11, 11)
    assert used["skipped"][Skipped.BUDGET_SPENT] == SkippedNumbers(patients=2)
    assert Skipped.OPTED_OUT not in used["skipped"]


def test_who_opted_out_since_is_a_reason_of_its_own_with_their_images(cohort: Cohort) -> None:
    identities = Identities(opted_out=frozenset({"P0", "P5"}))
    left = without_opted_out(cohort, identities, SPLIT_KEY)
    used = used_patients(left, prepared(left))
    assert (used["matched"], used["patients"], used["images_matched"], used["images"]) == (9, 5, 11, 7)
    assert used["skipped"][Skipped.OPTED_OUT] == SkippedNumbers(patients=2, images=4)
    assert used["skipped"][Skipped.BUDGET_SPENT] == SkippedNumbers(patients=2)


def test_files_and_rows_are_filed_under_a_fixed_vocabulary_and_patients_are_none_of_them(cohort: Cohort) -> None:
    skipped = used_patients(cohort, prepared(cohort))["skipped"]
    files = {reason: numbers.images for reason, numbers in skipped.items() if numbers.images}
    assert files == {Skipped.UNREADABLE: 4, Skipped.CONFLICTS: 1, Skipped.UNLABELLED: 2}


def asking(epsilon: float | None) -> StudySpec:
    return parse_study(
        {
            "name": "tiny",
            "cohort": {"modality": ["DX"]},
            "label": {"classes": ["no", "yes"]},
            "network": {"name": "convnet"},
            "training": {"local_steps": 2, "sampling_rate": 0.5},
            "rounds": 2,
            "privacy": {"epsilon": None, "receipt_epsilon": epsilon},
        }
    )


def test_the_number_that_leaves_is_the_same_for_the_same_task_and_fresh_for_another(cohort: Cohort) -> None:
    training, study = prepared(cohort)["train"], asking(0.1)
    first, other = NoiseSource(b"k" * 32, "task 1", "cohort"), NoiseSource(b"k" * 32, "task 2", "cohort")
    again = replace(first)
    told = use_that_leaves(study, training, first)
    assert told is not None
    assert told == use_that_leaves(study, training, again)
    assert told.noise_epsilon == 0.1
    assert told != use_that_leaves(study, training, other)
    assert first.positions() == {"receipts": 16}


def test_nothing_leaves_where_the_study_asks_for_no_number(cohort: Cohort) -> None:
    assert use_that_leaves(asking(None), prepared(cohort)["train"], NoiseSource(b"k" * 32, "task", "cohort")) is None
