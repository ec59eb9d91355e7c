"""Of whom a task was made: the numbers of its receipt here, and the noised one that leaves with an update."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from protocol.round_receipts import noised_use
from protocol.study import StudySpec
from protocol.study_parts import Split
from site_node.candidate import NoisedUse
from site_node.cohort.cohort import Cohort
from site_node.cohort.fallen_out import concerns_of
from site_node.privacy.noise import NoiseSource
from site_node.training.prepared_patients import PreparedPatients
from site_node.work_receipts import Skipped, SkippedNumbers


def use_that_leaves(study: StudySpec, patients: PreparedPatients, noise: NoiseSource) -> NoisedUse | None:
    """Return the noised number of patients that a training could draw; None where the study asks for none.

    The noise is the task's and the cohort's: the same task over the same patients tells the same number again.
    """
    epsilon = study.privacy.receipt_epsilon
    if epsilon is None:
        return None
    told = noised_use(patients.patients, epsilon, noise.receipts.two_sided_geometric)
    return NoisedUse(patients=told, noise_epsilon=epsilon)


def used_patients(cohort: Cohort, prepared: Mapping[Split, PreparedPatients]) -> dict[str, Any]:
    """Return what a receipt says of a task over these splits: who matched, who was used, who was skipped and why."""
    patients = sum(own.patients for own in prepared.values())
    images = sum(len(own.rows) for own in prepared.values())
    skipped = _skipped_patients(cohort, prepared)
    opted_out = skipped.get(Skipped.OPTED_OUT, SkippedNumbers())
    return {
        "matched": patients + sum(numbers.patients for numbers in skipped.values()),
        "patients": patients,
        "images": images,
        "images_matched": images + opted_out.images,
        "skipped": skipped | _skipped_files(cohort),
    }


def _skipped_patients(cohort: Cohort, splits: Iterable[Split]) -> dict[Skipped, SkippedNumbers]:
    opted_out = [cohort.opted_out.get(split, (0, 0)) for split in splits]
    patients, images = sum(number for number, _ in opted_out), sum(number for _, number in opted_out)
    spent = sum(cohort.left_out.get(split, 0) for split in splits) - patients
    found = {
        Skipped.BUDGET_SPENT: SkippedNumbers(patients=spent),
        Skipped.OPTED_OUT: SkippedNumbers(patients=patients, images=images),
    }
    return {reason: numbers for reason, numbers in found.items() if numbers.patients}


def _skipped_files(cohort: Cohort) -> dict[Skipped, SkippedNumbers]:
    counted: Counter[Skipped] = Counter()
    for concern, number in concerns_of(cohort.dropped):
        counted[Skipped(concern)] += number
    return {reason: SkippedNumbers(images=number) for reason, number in sorted(counted.items()) if number}
