"""Merges and opt-outs before every kind of cohort, and a running study's cohort after an opt-out."""

from pathlib import Path

import numpy as np
import pytest

from site_node.cohort.cohort import Cohort, build_cohort
from site_node.cohort.identities import AS_THEY_ARE, Identities, MergeRow, identities_of
from site_node.cohort.index import index_folder
from site_node.cohort.index_database import open_index
from site_node.cohort.opted_out import without_opted_out
from site_node.cohort.roll import Roll
from site_node.cohort.splits import split_by_hash
from site_node.cohort.table_cohort import build_table_cohort
from site_node.cohort_members import SpentPatients, ledger_pseudonym
from site_node.training.patients import prepare_cohort
from tests.fakes.dicom import FakeHospital, make_hospital
from tests.site_node.cohort.studies import study_of
from tests.site_node.cohort.tables import table_study, write_table

KEY = b"k" * 32
MERGED = identities_of([MergeRow("P0001", "P0002"), MergeRow("P0002", "P0003"), MergeRow("P0009", "new")])


@pytest.fixture
def hospital(tmp_path: Path) -> FakeHospital:
    return make_hospital(tmp_path / "images", patients=12, size=8, split=lambda number: "train")


def cohort_of(hospital: FakeHospital, identities: Identities = AS_THEY_ARE) -> Cohort:
    index = hospital.folder.with_suffix(".sqlite")
    index_folder([hospital.folder], index)
    return build_cohort(index, hospital.labels, study_of(), KEY, identities=identities)


def test_images_of_joined_ids_are_one_patient_s(hospital: FakeHospital) -> None:
    cohort = cohort_of(hospital, MERGED)
    sizes = {patient.key: len(patient.images) for patient in cohort.patients}
    assert sizes["P0003"] == 6
    assert sizes["new"] == 2
    assert not sizes.keys() & {"P0001", "P0002", "P0009"}
    assert len(sizes) == 10
    assert cohort.dropped == {}


def test_labels_may_name_a_patient_by_the_new_id_and_the_header_by_the_old(hospital: FakeHospital) -> None:
    text = hospital.labels.read_text(encoding="utf-8").replace("P0009", "new")
    hospital.labels.write_text(text, encoding="utf-8")
    cohort = cohort_of(hospital, MERGED)
    assert "new" in {patient.key for patient in cohort.patients}
    assert cohort.dropped == {}


def test_who_opted_out_is_not_there_and_not_counted(hospital: FakeHospital) -> None:
    cohort = cohort_of(hospital, MERGED.without(["P0001", "P0005"]))
    assert len(cohort.patients) == 8
    assert cohort.dropped == cohort.left_out == {}
    assert not {"P0003", "P0005"} & {patient.key for patient in cohort.patients}


def test_the_index_tells_no_image_of_who_opted_out(hospital: FakeHospital) -> None:
    cohort_of(hospital)
    with open_index(hospital.folder.with_suffix(".sqlite"), MERGED.without(["P0001"])) as database:
        told = {image.header.patient_id for image in database.images()}
    assert told == {"P0000", "P0004", "P0005", "P0006", "P0007", "P0008", "new", "P0010", "P0011"}


def test_a_merged_patient_is_called_and_charged_under_all_ids(hospital: FakeHospital) -> None:
    spent = SpentPatients(training=frozenset({ledger_pseudonym("P0009", KEY)}))
    roll = Roll(spent, KEY, MERGED)
    index = hospital.folder.with_suffix(".sqlite")
    index_folder([hospital.folder], index)
    cohort = build_cohort(index, hospital.labels, study_of(), KEY, roll.may_take_part, MERGED)
    members = roll.members(study_of().digest, cohort)
    assert members.spent_training == [ledger_pseudonym("new", KEY)]
    expected = [["P0003", "P0001", "P0002"], ["new", "P0009"]]
    assert {own[0]: set(own) for own in members.merged} == {
        ledger_pseudonym(own[0], KEY): {ledger_pseudonym(one, KEY) for one in own} for own in expected
    }


def test_a_renamed_patient_keeps_the_split_and_a_joined_one_is_held_out_only_if_both_ids_were() -> None:
    fractions = study_of().splits
    dealt = {name: split_by_hash(name, fractions, KEY) for name in (f"P{number}" for number in range(200))}
    trained = next(name for name, split in dealt.items() if split == "train")
    tested = next(name for name, split in dealt.items() if split == "test")
    renamed = identities_of([MergeRow(tested, trained, renamed=True)])
    joined = identities_of([MergeRow(trained, tested)])
    for identities, expected in ((renamed, "test"), (joined, "train")):
        places = {split_by_hash(one, fractions, KEY) for one in identities.dealt_as(tested)}
        assert min(places, key=("train", "validation", "test").index) == expected


@pytest.mark.parametrize("merged", [False, True])
def test_a_table_s_rows_are_merged_and_left_out_alike(tmp_path: Path, merged: bool) -> None:
    study = table_study()
    rows = [f"P{n:04d},{40 + n},1.5,{n % 2},train" for n in range(12)]
    table = write_table(tmp_path / "table.csv", rows)
    identities = (MERGED if merged else AS_THEY_ARE).without(["P0005"])
    cohort = build_table_cohort(table, study, KEY, identities=identities)
    assert len(cohort.patients) == (9 if merged else 11)
    assert cohort.values is not None
    assert len(cohort.values) == 11
    assert "P0005" not in {patient.key for patient in cohort.patients}


def test_a_running_study_goes_on_without_who_opted_out_and_with_its_public_figure(hospital: FakeHospital) -> None:
    frozen = cohort_of(hospital)
    assert without_opted_out(frozen, AS_THEY_ARE, KEY) is frozen
    assert without_opted_out(frozen, AS_THEY_ARE.without(["stranger"]), KEY) is frozen
    left = without_opted_out(frozen, MERGED.without(["P0002"]), KEY)
    assert [patient.key for patient in left.patients] == [
        patient.key for patient in frozen.patients if patient.key not in ("P0001", "P0002", "P0003")
    ]
    assert left.public_figure("train") == frozen.public_figure("train") == 12
    assert left.training_figure == frozen.training_figure
    assert left.manifest_digest != frozen.manifest_digest
    assert left.manifest_digest == without_opted_out(frozen, MERGED.without(["P0003"]), KEY).manifest_digest
    prepared = prepare_cohort(study_of(), left, ["train"], None)["train"]
    assert (prepared.patients, prepared.public_figure) == (9, 12)


def test_a_frozen_table_s_rows_go_with_their_patient(tmp_path: Path) -> None:
    rows = [f"P{n // 2},{40 + n},1.5,{n // 2 % 2},train" for n in range(12)]
    frozen = build_table_cohort(write_table(tmp_path / "table.csv", rows), table_study(), KEY)
    left = without_opted_out(frozen, AS_THEY_ARE.without(["P3"]), KEY)
    assert frozen.values is not None
    assert left.values is not None
    gone = [patient.key == "P3" for patient in frozen.patients for _ in patient.images]
    np.testing.assert_array_equal(left.values, frozen.values[[not out for out in gone]])
    assert len(left.values) == 10
