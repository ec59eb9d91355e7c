"""What a cohort's patients say about its data: counts of patients, of which each moves each by at most one."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from site_node.cohort.quality import Noticed, quality_counts
from tests.fakes.dicom import FakeHospital, make_hospital
from tests.site_node.cohort.test_cohort import by_thirds, cohort_of

TRAINING = ("P0000", "P0001", "P0006", "P0007")  # of by_thirds, with twelve patients


def hospital_in(tmp_path: Path) -> FakeHospital:
    return make_hospital(tmp_path / "images", patients=12, size=8, split=by_thirds)


def test_whole_images_once_each_leave_labels_to_be_counted(tmp_path: Path) -> None:
    assert cohort_of(hospital_in(tmp_path)).quality_counts() == (2, 0, 0)


def test_a_damaged_image_counts_its_patient_once_and_only_in_training(tmp_path: Path) -> None:
    hospital = hospital_in(tmp_path)
    for patient in ("P0001", "P0002"):  # the second is held out
        image = hospital.folder / patient / "1.dcm"
        image.write_bytes(image.read_bytes()[:-30])
    assert cohort_of(hospital).quality_counts() == (2, 1, 0)


def test_a_missing_image_counts_like_a_damaged_one(tmp_path: Path) -> None:
    hospital = hospital_in(tmp_path)
    (hospital.folder / "P0006" / "0.dcm").unlink()
    assert cohort_of(hospital).quality_counts() == (2, 1, 0)


def test_a_patient_of_whom_nothing_can_be_read_is_charged_for_nothing_and_counts_in_nothing(tmp_path: Path) -> None:
    hospital = hospital_in(tmp_path)
    shutil.rmtree(hospital.folder / "P0006")
    assert cohort_of(hospital).quality_counts() == (1, 0, 0)


def test_copies_of_an_image_count_their_patient_once(tmp_path: Path) -> None:
    hospital = hospital_in(tmp_path)
    for copy in ("again", "and-again"):
        shutil.copytree(hospital.folder / "P0000", hospital.folder / copy)
    assert cohort_of(hospital).quality_counts() == (2, 0, 1)


Files = Sequence[tuple[str, str, bool]]  # patient, name, whether it can be read
FILES = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("12"), st.booleans()), max_size=12)
LABELS = st.fixed_dictionaries({patient: st.integers(0, 1) for patient in "abcd"})


def counts_of(files: Files, labels: dict[str, int]) -> tuple[int, int, int]:
    noticed = Noticed()
    for patient, name, is_readable in files:
        noticed.see(patient, name)
        if not is_readable:
            noticed.unreadable.add(patient)
    training = {patient for patient, _, is_readable in files if is_readable}
    return quality_counts([(patient, labels[patient]) for patient in sorted(training)], noticed)


@given(FILES, LABELS, st.sampled_from("abcd"))
def test_one_patient_less_moves_each_count_by_at_most_one(files: Files, labels: dict[str, int], gone: str) -> None:
    without = counts_of([file for file in files if file[0] != gone], labels)
    moved = [before - after for before, after in zip(counts_of(files, labels), without, strict=True)]
    assert all(0 <= step <= 1 for step in moved)
