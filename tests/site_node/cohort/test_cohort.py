"""Cohorts: who is in, who fell out and why, and what names the result."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.messages import Reason
from site_node.cohort.cohort import BELOW_MINIMUM, ONE_CLASS, SEVERAL_SPLITS, Cohort, build_cohort
from site_node.cohort.contents import UNDECODABLE, VANISHED
from site_node.cohort.findings import patient_label
from site_node.cohort.index import index_folder
from site_node.cohort.matching import ORPHAN, OTHER_PATIENT, SEVERAL_FRAMES, UNLABELLED
from site_node.errors import IndexingError, TooFewPatientsError
from tests.fakes.dicom import FakeHospital, make_dataset, make_hospital, save, write_labels
from tests.site_node.cohort.studies import study_of

KEY = b"k" * 32
PIXELS = np.zeros((8, 8), dtype=np.uint8)
DEMO = Path(__file__).parents[3] / "compose" / "demo" / "hospitals"


def cohort_of(hospital: FakeHospital, **study: Any) -> Cohort:
    index = hospital.folder.with_suffix(".sqlite")
    index_folder([hospital.folder], index)
    return build_cohort(index, hospital.labels, study_of(**study), KEY)


def with_rows(hospital: FakeHospital, change: Callable[[list[dict[str, str]]], None]) -> FakeHospital:
    rows = [dict(row) for row in hospital.rows]
    change(rows)
    write_labels(hospital.labels, rows)
    return FakeHospital(hospital.folder, hospital.labels, tuple(rows))


def by_thirds(patient: int) -> str:
    return ("train", "validation", "test")[patient // 2 % 3]


@pytest.fixture
def hospital(tmp_path: Path) -> FakeHospital:
    return make_hospital(tmp_path / "images", patients=12, size=8, split=by_thirds)


def test_patients_come_sorted_with_their_images_and_facts(hospital: FakeHospital) -> None:
    cohort = cohort_of(hospital)
    assert [patient.key for patient in cohort.patients] == [f"P{number:04d}" for number in range(12)]
    assert all(len(patient.images) == 2 for patient in cohort.patients)
    assert {split: len(cohort.of(split)) for split in ("train", "validation", "test")} == {
        "train": 4, "validation": 4, "test": 4,
    }  # fmt: skip
    image = cohort.patients[3].images[0]
    assert (image.label, image.age_years, image.sex, image.view, image.frame) == (0, 23.0, "M", "AP", None)
    assert cohort.dropped == {}


def test_without_a_stated_split_the_hash_decides_by_patient(tmp_path: Path) -> None:
    cohort = cohort_of(make_hospital(tmp_path / "images", patients=60, size=8))
    assert {patient.split for patient in cohort.patients} == {"train", "validation", "test"}
    assert len({patient.key for patient in cohort.patients}) == 60


def test_criteria_choose_images(hospital: FakeHospital) -> None:
    cohort = cohort_of(hospital, cohort={"sex": ["F"]})
    assert len(cohort.patients) == 6
    assert cohort.dropped == {"image: its sex is none that the study asks for": 12}


def test_the_labels_file_stands_in_where_the_header_is_silent(tmp_path: Path) -> None:
    rows = []
    for number in range(4):
        dataset = make_dataset(PIXELS, f"P{number}", ViewPosition=None, PatientAge=None, PatientID="")
        save(dataset, tmp_path / "images" / f"{number}.dcm")
        rows.append({"patient_id": f"P{number}", "sop_instance_uid": str(dataset.SOPInstanceUID)})
        rows[-1] |= {"label": str(number % 2), "view": "ap", "age": "70.0", "split": "train"}
    labels = write_labels(tmp_path / "labels.csv", rows)
    hospital = FakeHospital(tmp_path / "images", labels, tuple(rows))
    cohort = cohort_of(hospital, cohort={"view": ["AP"], "age_min_years": 60})
    assert [patient.key for patient in cohort.patients] == ["P0", "P1", "P2", "P3"]
    assert cohort.patients[0].images[0].age_years == 70.0


def test_orphans_on_both_sides_are_counted(hospital: FakeHospital) -> None:
    save(make_dataset(PIXELS, "P0000", "unlabelled"), hospital.folder / "unlabelled.dcm")
    extra = {**hospital.rows[0], "sop_instance_uid": "1.2.3"}
    cohort = cohort_of(with_rows(hospital, lambda rows: rows.append(extra)))
    assert cohort.dropped == {UNLABELLED: 1, ORPHAN: 1}
    assert len(cohort.patients) == 12


def test_an_image_that_the_study_does_not_ask_for_lacks_no_row(hospital: FakeHospital) -> None:
    for name, headers in (("ct", {"Modality": "CT"}), ("silent", {"Modality": None}), ("dx", {})):
        save(make_dataset(PIXELS, "P0000", name, **headers), hospital.folder / f"{name}.dcm")
    dropped = cohort_of(hospital, cohort={"modality": ["DX"], "sex": ["F", "M"]}).dropped
    assert dropped == {"image: its modality is none that the study asks for": 1, UNLABELLED: 2}


def test_a_patient_in_several_splits_is_dropped(hospital: FakeHospital) -> None:
    def move(rows: list[dict[str, str]]) -> None:
        rows[0]["split"] = "test"

    cohort = cohort_of(with_rows(hospital, move))
    assert "P0000" not in {patient.key for patient in cohort.patients}
    assert cohort.dropped == {SEVERAL_SPLITS: 1}


def test_an_image_of_another_patient_is_dropped(hospital: FakeHospital) -> None:
    def misfile(rows: list[dict[str, str]]) -> None:
        rows[0]["patient_id"] = "P0001"

    cohort = cohort_of(with_rows(hospital, misfile))
    assert cohort.dropped == {OTHER_PATIENT: 1}
    assert [len(patient.images) for patient in cohort.patients[:2]] == [1, 2]


def test_several_frames_are_dropped(hospital: FakeHospital) -> None:
    dataset = make_dataset(PIXELS, "P0000", "film", NumberOfFrames=2, PixelData=PIXELS.tobytes() * 2)
    save(dataset, hospital.folder / "film.dcm")
    row = {**hospital.rows[0], "sop_instance_uid": str(dataset.SOPInstanceUID)}
    assert cohort_of(with_rows(hospital, lambda rows: rows.append(row))).dropped == {SEVERAL_FRAMES: 1}


def test_what_does_not_decode_is_dropped_before_training(hospital: FakeHospital) -> None:
    dataset = make_dataset(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8), "P0000", "cut")
    dataset.compress("1.2.840.10008.1.2.4.90", generate_instance_uid=False)
    path = save(dataset, hospital.folder / "cut.dcm")
    content = path.read_bytes()
    path.write_bytes(content[:-500].replace(b"\xff\x52", b"\0\0") + bytes(492) + content[-8:])  # no coding style left
    row = {**hospital.rows[0], "sop_instance_uid": str(dataset.SOPInstanceUID)}
    assert cohort_of(with_rows(hospital, lambda rows: rows.append(row))).dropped == {UNDECODABLE: 1}


def test_a_file_that_went_away_after_indexing_is_dropped(hospital: FakeHospital) -> None:
    cohort_of(hospital)
    (hospital.folder / "P0000" / "0.dcm").unlink()
    (hospital.folder / "P0000" / "1.dcm").write_bytes(b"changed")
    cohort = build_cohort(hospital.folder.with_suffix(".sqlite"), hospital.labels, study_of(), KEY)
    assert cohort.dropped == {VANISHED: 2}


@pytest.mark.parametrize(
    ("rule", "labels", "label"),
    [
        ("any", [0, 0, 1], 1), ("any", [0, 0], 0), ("all", [1, 0, 1], 0), ("all", [1, 1], 1),
        ("majority", [1, 1, 0], 1), ("majority", [1, 0], 0), ("majority", [1, 0, 0], 0),
    ],
)  # fmt: skip
def test_a_patients_label_follows_the_studys_rule(rule: Any, labels: list[int], label: int) -> None:
    assert patient_label(labels, rule) == label


def test_one_class_in_training_trains_nobody_and_in_held_out_patients_is_as_good_as_any(tmp_path: Path) -> None:
    def train_first(number: int) -> str:
        return "train" if number < 4 else "test"

    mixed = make_hospital(tmp_path / "a", patients=6, size=8, positive=lambda number: number > 3, split=train_first)
    cohort = cohort_of(mixed)
    assert (len(cohort.of("train")), len(cohort.of("test"))) == (0, 2)
    assert cohort.dropped == {ONE_CLASS: 4}
    trains = make_hospital(tmp_path / "b", patients=4, size=8, positive=lambda _: True, split=lambda _: "train")
    with pytest.raises(TooFewPatientsError) as caught:
        cohort_of(trains)
    assert caught.value.reason is Reason.TOO_FEW_PATIENTS
    tests = make_hospital(tmp_path / "c", patients=4, size=8, positive=lambda _: True, split=lambda _: "test")
    assert len(cohort_of(tests).of("test")) == 4


def test_a_site_below_the_minimum_only_evaluates(hospital: FakeHospital) -> None:
    cohort = cohort_of(hospital, cohort={"minimum_patients": 5})
    assert (len(cohort.of("train")), len(cohort.of("test"))) == (0, 4)
    assert cohort.dropped == {BELOW_MINIMUM: 4}


def test_nobody_left_is_an_error_that_says_why(hospital: FakeHospital) -> None:
    with pytest.raises(TooFewPatientsError, match="20 or more x image: its modality is none") as caught:
        cohort_of(hospital, cohort={"modality": ["CT"]})
    assert caught.value.reason is Reason.TOO_FEW_PATIENTS
    assert "P0000" not in str(caught.value)


def test_small_numbers_of_what_fell_out_and_all_numbers_of_patients_stay_out_of_the_error(tmp_path: Path) -> None:
    few = make_hospital(tmp_path / "few", patients=4, size=8, positive=lambda _: True, split=lambda _: "train")
    with pytest.raises(TooFewPatientsError) as caught:
        cohort_of(few)
    assert ONE_CLASS in str(caught.value)
    assert f"4 x {ONE_CLASS}" not in str(caught.value)
    with pytest.raises(TooFewPatientsError, match="fewer than 25 x image: its modality is none"):
        cohort_of(few, cohort={"modality": ["CT"], "minimum_patients": 25})
    with pytest.raises(TooFewPatientsError, match="fewer than 10 x image: its modality is none"):
        cohort_of(few, cohort={"modality": ["CT"], "minimum_patients": 2})


def test_without_an_index_the_remedy_is_named(hospital: FakeHospital, tmp_path: Path) -> None:
    with pytest.raises(IndexingError, match="site index"):
        build_cohort(tmp_path / "none.sqlite", hospital.labels, study_of(), KEY)


class TestManifestDigest:
    """Equal digest, equal cohort; it keys the noise."""

    def test_it_does_not_depend_on_where_the_files_lie(self, hospital: FakeHospital, tmp_path: Path) -> None:
        shutil.copytree(hospital.folder, tmp_path / "copy")
        copy = FakeHospital(tmp_path / "copy", hospital.labels, hospital.rows)
        assert cohort_of(hospital).manifest_digest == cohort_of(copy).manifest_digest

    def test_it_is_the_same_when_contents_are_remembered(self, hospital: FakeHospital) -> None:
        assert cohort_of(hospital).manifest_digest == cohort_of(hospital).manifest_digest

    def test_other_pixels_give_another(self, hospital: FakeHospital) -> None:
        before = cohort_of(hospital).manifest_digest
        path = hospital.folder / "P0000" / "0.dcm"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert cohort_of(hospital).manifest_digest != before

    @pytest.mark.parametrize(("column", "value"), [("label", "0"), ("split", "test")])
    def test_other_labels_or_splits_give_another(self, hospital: FakeHospital, column: str, value: str) -> None:
        before = cohort_of(hospital).manifest_digest

        def change(rows: list[dict[str, str]]) -> None:
            rows[0][column] = rows[1][column] = value

        assert cohort_of(with_rows(hospital, change)).manifest_digest != before

    def test_another_key_gives_another(self, hospital: FakeHospital) -> None:
        before = cohort_of(hospital).manifest_digest
        index = hospital.folder.with_suffix(".sqlite")
        assert build_cohort(index, hospital.labels, study_of(), b"o" * 32).manifest_digest != before


@pytest.mark.parametrize(
    ("hospital", "sizes"), [("st-anna", (167, 24, 48)), ("harbour", (100, 14, 28)), ("northfield", (67, 10, 19))]
)
def test_the_demos_hospitals_have_the_sizes_that_are_told(
    hospital: str, sizes: tuple[int, int, int], tmp_path: Path
) -> None:
    study = study_of(cohort={"modality": ["DX"]}, label={"column": "pneumonia"})
    index_folder([DEMO / hospital], tmp_path / "index.sqlite")
    cohort = build_cohort(tmp_path / "index.sqlite", DEMO / hospital / "labels.csv", study, KEY)
    assert tuple(len(cohort.of(split)) for split in ("train", "validation", "test")) == sizes
    assert cohort.dropped == {}
