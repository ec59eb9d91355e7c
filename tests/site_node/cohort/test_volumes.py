"""Cohorts of volumes: series labelled, chosen, and dropped by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol import preprocessing_steps
from protocol.study import parse_study
from site_node.cohort.cohort import Cohort, build_cohort
from site_node.cohort.contents import UNDECODABLE
from site_node.cohort.fallen_out import fallen_out
from site_node.cohort.index import index_folder
from site_node.cohort.matching import ORPHAN, OTHER_PATIENT, UNLABELLED
from site_node.cohort.volumes import DAMAGED_FILE, NO_VOLUME, REPEATED_SERIES, ROWS_DISAGREE, TOO_FINE
from site_node.dicom.series import GAP
from site_node.dicom.volume import stack_of
from tests.fakes.dicom import FakeHospital, write_labels
from tests.fakes.series import make_volume_hospital, positions_of, saved, series_of
from tests.site_node.cohort.studies import study_of

KEY = b"k" * 32


def cohort_of(hospital: FakeHospital, **cohort: Any) -> Cohort:
    index = hospital.folder.with_suffix(".sqlite")
    index_folder([hospital.folder], index)
    data = study_of(cohort=cohort).model_dump(mode="json", by_alias=True)
    data["preprocessing"]["size"] = [8, 8, 8]
    return build_cohort(index, hospital.labels, parse_study(data), KEY)


@pytest.fixture
def hospital(tmp_path: Path) -> FakeHospital:
    return make_volume_hospital(tmp_path / "images")


def relabelled(hospital: FakeHospital, *more: dict[str, str]) -> FakeHospital:
    rows = [*hospital.rows, *more]
    return FakeHospital(hospital.folder, write_labels(hospital.labels, rows), tuple(rows))


def add_series(hospital: FakeHospital, series: str, count: int, step_mm: float, **headers: Any) -> list[Path]:
    slices = series_of(
        np.full((count, 16, 16), 900, np.int16),
        positions_of(count, step_mm),
        patient_id="V0000",
        series=series,
        **headers,
    )
    row = {**hospital.rows[0], "sop_instance_uid": str(slices[0].SeriesInstanceUID)}
    relabelled(hospital, row)
    return saved(slices, hospital.folder / series)


@pytest.mark.parametrize("by_slice", [False, True])
def test_a_labelled_series_is_one_volume_of_its_patient(tmp_path: Path, by_slice: bool) -> None:
    cohort = cohort_of(make_volume_hospital(tmp_path / "images", by_slice=by_slice), modality=["CT"])
    assert [patient.label for patient in cohort.patients] == [0, 1, 0, 1, 0, 1]
    assert all(len(patient.images) == 1 for patient in cohort.patients)
    image = cohort.patients[1].images[0]
    assert [plane.source for plane in stack_of(image.slices).planes] == [0, 1, 2, 3, 4]
    assert image.path == image.slices[0]
    assert cohort.dropped == {}


def test_a_cohort_of_volumes_is_named_by_every_slice(hospital: FakeHospital) -> None:
    first = cohort_of(hospital).manifest_digest
    assert cohort_of(hospital).manifest_digest == first
    path = sorted((hospital.folder / "V0000").iterdir())[2]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cohort_of(hospital).manifest_digest != first


def test_of_repeated_series_of_an_imaging_study_one_is_used(hospital: FakeHospital) -> None:
    thin = add_series(hospital, "thin", 10, 1.5)  # 15 mm, as the first series covers with 3 mm
    cohort = cohort_of(hospital)
    assert set(cohort.patients[0].images[0].slices) == set(thin)
    assert cohort.dropped == {REPEATED_SERIES: 5}


def test_series_of_another_imaging_study_are_another_volume(hospital: FakeHospital) -> None:
    add_series(hospital, "later", 10, 1.5, StudyInstanceUID="1.2.3.4")
    cohort = cohort_of(hospital)
    assert [len(patient.images) for patient in cohort.patients] == [2, 1, 1, 1, 1, 1]


def test_a_series_that_makes_no_volume_falls_out_with_its_reason(hospital: FakeHospital) -> None:
    next((hospital.folder / "V0002").glob("*-2.dcm")).unlink()
    cohort = cohort_of(hospital)
    assert "V0002" not in [patient.key for patient in cohort.patients]
    assert cohort.dropped == {NO_VOLUME + GAP: 4}
    (said,) = fallen_out(cohort.dropped, 1)
    assert said.is_fault
    assert "slices are missing between others" in said.why


def test_a_series_with_a_slice_that_does_not_decode_falls_out(hospital: FakeHospital) -> None:
    slices = series_of(
        np.random.default_rng(0).integers(0, 900, (3, 64, 64)).astype(np.int16), positions_of(3), patient_id="V0000"
    )
    slices[1].compress("1.2.840.10008.1.2.4.90", generate_instance_uid=False)
    for old in (hospital.folder / "V0000").iterdir():
        old.unlink()
    paths = saved(slices, hospital.folder / "V0000")
    broken = next(path for path in paths if path.name.endswith("-1.dcm"))
    broken.write_bytes(broken.read_bytes().replace(b"\xff\x52", b"\0\0"))  # no coding style left
    assert cohort_of(hospital).dropped[UNDECODABLE] == 3


def test_a_series_whose_last_slice_is_cut_short_falls_out_and_is_not_shortened(hospital: FakeHospital) -> None:
    last = next((hospital.folder / "V0002").glob("*-4.dcm"))
    last.write_bytes(last.read_bytes()[:-100])
    cohort = cohort_of(hospital)
    assert "V0002" not in [patient.key for patient in cohort.patients]
    assert cohort.dropped == {NO_VOLUME + DAMAGED_FILE: 4}


def test_rows_of_one_series_must_agree(hospital: FakeHospital) -> None:
    slices = series_of(np.zeros((5, 16, 16), np.int16), positions_of(5), patient_id="V0000")
    relabelled(hospital, {**hospital.rows[0], "sop_instance_uid": str(slices[3].SOPInstanceUID), "label": "1"})
    assert cohort_of(hospital).dropped[ROWS_DISAGREE] == 5


def test_what_has_no_row_or_no_series_or_another_patient_is_counted(hospital: FakeHospital) -> None:
    rows = [
        {**hospital.rows[0], "patient_id": "V9999"},
        *hospital.rows[2:],
        {**hospital.rows[2], "sop_instance_uid": "1.2.3"},
    ]
    cohort = cohort_of(FakeHospital(hospital.folder, write_labels(hospital.labels, rows), ()))
    assert cohort.dropped == {OTHER_PATIENT: 5, UNLABELLED: 5, ORPHAN: 1}


def test_a_series_that_the_study_does_not_ask_for_lacks_no_row(hospital: FakeHospital) -> None:
    for series, modality in (("mr", "MR"), ("ct", "CT")):
        add_series(hospital, series, 5, 2.0, Modality=modality)
    write_labels(hospital.labels, list(hospital.rows))
    dropped = cohort_of(hospital, modality=["CT"]).dropped
    assert dropped == {"image: its modality is none that the study asks for": 5, UNLABELLED: 5}


def test_a_series_of_which_the_studys_spacing_would_make_too_many_voxels_falls_out(
    hospital: FakeHospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_series(hospital, "long", 40, 3.0, StudyInstanceUID="2.25.77")
    data = study_of().model_dump(mode="json", by_alias=True)
    data["preprocessing"] = {
        "size": [8, 8, 8],
        "steps": [
            {"transform": "Orientation", "axcodes": "RAS"},
            {"transform": "Spacing", "pixdim": [1.0, 1.0, 1.0]},
            {"transform": "ScaleIntensity"},
            {"transform": "Resize", "spatial_size": [8, 8, 8]},
        ],
    }
    monkeypatch.setattr(preprocessing_steps, "MOST_VOXELS", 12_000)  # 5 slices make 1536, 40 make 12288
    index = hospital.folder.with_suffix(".sqlite")
    index_folder([hospital.folder], index)
    cohort = build_cohort(index, hospital.labels, parse_study(data), KEY)
    assert cohort.dropped == {TOO_FINE: 40}
    assert [len(patient.images) for patient in cohort.patients] == [1] * 6
    (fallen,) = fallen_out(cohort.dropped, 1)
    assert "Spacing" in fallen.remedy
