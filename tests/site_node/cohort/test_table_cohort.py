"""The cohort of a table: rows as hospitals write them, grouped by patient, scaled by the study's constants alone."""

from pathlib import Path

import numpy as np
import pytest

from protocol.messages import Reason
from site_node.cohort.cohort import BELOW_MINIMUM, ONE_CLASS, Cohort
from site_node.cohort.fallen_out import fallen_out
from site_node.cohort.table import (
    EMPTY_CELL,
    FOREIGN_LABEL,
    FOREIGN_SPLIT,
    NO_LABEL,
    NO_NUMBER,
    NO_PATIENT,
    NO_TIME,
)
from site_node.cohort.table_cohort import REPEATED, SEVERAL_SPLITS, SEVERAL_TIMES, build_table_cohort
from site_node.errors import LabelsError, TooFewPatientsError
from tests.site_node.cohort.tables import SURVIVAL_HEADER, survival_study, table_study, write_table

KEY = b"k" * 32
GOOD = ["A,70,1.5,no,train", "B,50,,yes,train", "C,60,0,1,test"]


def cohort_of(folder: Path, rows: list[str], **parts: object) -> Cohort:
    return build_table_cohort(write_table(folder / "table.csv", rows), table_study(**parts), KEY)


def test_rows_become_scaled_values_in_the_order_of_the_patients(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, GOOD[::-1])
    assert [(p.key, p.label, p.split, p.time) for p in cohort.patients] == [
        ("A", 0, "train", None), ("B", 1, "train", None), ("C", 1, "test", None)
    ]  # fmt: skip
    assert cohort.values is not None
    assert cohort.values.dtype == np.float32
    assert cohort.values.tolist() == [[1, 1.5], [-1, 2.0], [0, 0]]
    assert cohort.dropped == {}


@pytest.mark.parametrize("empty", ["", " ", "NA", "n/a", "NaN", "null", "?"])
def test_a_missing_value_is_the_studys_constant_and_nothing_of_the_patients(tmp_path: Path, empty: str) -> None:
    cohort = cohort_of(tmp_path, ["A,70,1.5,no,train", f"B,50,{empty},yes,train"])
    assert cohort.values is not None
    assert cohort.values[1, 1] == 2.0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",50,1,yes,train", NO_PATIENT),
        ("X,50,1,,train", NO_LABEL),
        ("X,50,1,?,train", NO_LABEL),
        ("X,50,1,maybe,train", FOREIGN_LABEL),
        ("X,50,1,2,train", FOREIGN_LABEL),
        ("X,,1,yes,train", EMPTY_CELL),
        ("X,old,1,yes,train", NO_NUMBER),
        ("X,inf,1,yes,train", NO_NUMBER),
        ("X,50,1e300,yes,train", NO_NUMBER),
        ("X,50,1,yes,later", FOREIGN_SPLIT),
        ("X", NO_LABEL),
        (GOOD[0], REPEATED),
    ],
)
def test_a_row_that_cannot_be_used_falls_out_and_is_counted(tmp_path: Path, row: str, reason: str) -> None:
    cohort = cohort_of(tmp_path, [*GOOD, row])
    assert [p.key for p in cohort.patients] == ["A", "B", "C"]
    assert cohort.dropped == {reason: 1}


def test_a_patient_may_have_several_rows_and_is_one_unit(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, [*GOOD, "A,71,1.5,yes,train", "D,60,0,no,train"])
    patient = cohort.patients[0]
    assert (len(patient.images), patient.label) == (2, 1)  # any
    assert sorted(image.label for image in patient.images if image.label is not None) == [0, 1]
    majority = cohort_of(tmp_path, [*GOOD, "A,71,1.5,yes,train"], label={"patient_label": "majority"})
    assert majority.patients[0].label == 0


def test_a_patient_in_two_splits_falls_out(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, [*GOOD, "A,71,1.5,yes,test", "D,60,0,no,train"])
    assert cohort.dropped == {SEVERAL_SPLITS: 1}
    assert [p.key for p in cohort.patients] == ["B", "C", "D"]


def test_equal_rows_in_any_order_and_place_have_one_manifest_and_a_changed_value_another(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    first = cohort_of(tmp_path, GOOD).manifest_digest
    assert cohort_of(tmp_path / "elsewhere", GOOD[::-1]).manifest_digest == first
    assert cohort_of(tmp_path, ["A,70,1.6,no,train", *GOOD[1:]]).manifest_digest != first
    assert cohort_of(tmp_path, ["A,70,1.5,no,test", *GOOD[1:], "D,1,1,no,train"]).manifest_digest != first


def test_semicolons_and_other_columns_and_a_hash_in_place_of_a_split(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\ufeffname;marker;patient_id;died;age\nAnna;1;A;no;70\nBert;1;B;yes;50\n", encoding="utf-8")
    cohort = build_table_cohort(path, table_study(splits={"validation": 0, "test": 0}), KEY)
    assert [(p.key, p.split) for p in cohort.patients] == [("A", "train"), ("B", "train")]


def test_a_lacking_column_is_named_and_nothing_of_the_file(tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.csv", ["A,70,no"], "patient_id,age,SECRET-NAME\n")
    with pytest.raises(LabelsError, match="lacks the columns 'died', 'marker'") as caught:
        build_table_cohort(path, table_study(), KEY)
    assert caught.value.reason is Reason.LABELS_UNUSABLE
    assert "SECRET-NAME" not in str(caught.value)


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.csv", ["A,70,1,no,1"], "patient_id,age,marker,died,age\n")
    with pytest.raises(LabelsError, match="'age' twice"):
        build_table_cohort(path, table_study(), KEY)


def test_a_site_without_a_table_says_so(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="offers no table"):
        build_table_cohort(None, table_study(), KEY)
    with pytest.raises(LabelsError, match="no such file"):
        build_table_cohort(tmp_path / "gone.csv", table_study(), KEY)


def test_who_may_not_take_part_is_left_out_with_their_rows(tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.csv", GOOD)
    cohort = build_table_cohort(path, table_study(), KEY, lambda patient: patient.key != "A")
    assert [p.key for p in cohort.patients] == ["C"]  # of B alone nothing is learnt
    assert cohort.dropped == {ONE_CLASS: 1}
    assert cohort.values is not None
    assert cohort.values.tolist() == [[0, 0]]


def test_too_few_do_not_train_and_nobody_is_an_error(tmp_path: Path) -> None:
    few = cohort_of(tmp_path, GOOD, cohort={"minimum_patients": 3})
    assert few.dropped == {BELOW_MINIMUM: 2}
    with pytest.raises(TooFewPatientsError):
        cohort_of(tmp_path, ["A,70,1,maybe,train"])


def test_survival_takes_time_and_event_of_the_patient(tmp_path: Path) -> None:
    rows = ["A,70,1,0,train,12.5", "B,50,1,1,train,3", "C,60,0,1,train,-1", "D,60,0,1,train,", "E,60,0,1,test,0"]
    cohort = build_table_cohort(write_table(tmp_path / "t.csv", rows, SURVIVAL_HEADER), survival_study(), KEY)
    assert [(p.key, p.label, p.time) for p in cohort.patients] == [("A", 0, 12.5), ("B", 1, 3.0), ("E", 1, 0.0)]
    assert cohort.dropped == {NO_TIME: 2}


def test_rows_of_one_patient_that_name_two_times_fall_out_together(tmp_path: Path) -> None:
    rows = ["A,70,1,0,train,12", "A,71,1,0,train,13", "B,50,1,1,train,3", "B,50,2,1,train,3"]
    cohort = build_table_cohort(write_table(tmp_path / "t.csv", rows, SURVIVAL_HEADER), survival_study(), KEY)
    assert [(p.key, len(p.images)) for p in cohort.patients] == [("B", 2)]
    assert cohort.dropped == {SEVERAL_TIMES: 1}


def test_a_site_of_one_class_trains_where_the_study_says_so(tmp_path: Path) -> None:
    rows = ["A,70,1.5,yes,train", "B,50,,yes,train", "C,60,0,no,test"]
    assert cohort_of(tmp_path, rows).dropped == {ONE_CLASS: 2}
    trains = cohort_of(tmp_path, rows, cohort={"single_class": "train"})
    assert [p.key for p in trains.of("train")] == ["A", "B"]
    few = cohort_of(tmp_path, rows, cohort={"single_class": "train", "minimum_patients": 3})
    assert few.dropped == {BELOW_MINIMUM: 2}


def test_without_an_event_nothing_is_learnt_and_with_events_alone_something(tmp_path: Path) -> None:
    alive = [f"P{n},70,1,0,train,{n + 1}" for n in range(4)] + ["T,70,1,0,test,5"]
    path = write_table(tmp_path / "t.csv", alive, SURVIVAL_HEADER)
    assert build_table_cohort(path, survival_study(), KEY).dropped == {ONE_CLASS: 4}
    path = write_table(path, [row.replace(",0,train", ",1,train") for row in alive], SURVIVAL_HEADER)
    assert build_table_cohort(path, survival_study(), KEY).dropped == {}


def test_what_fell_out_is_said_with_a_remedy_and_hidden_small_numbers(tmp_path: Path) -> None:
    rows = [*GOOD, *(f"X{n},,1,yes,train" for n in range(12)), "Y,1,1,maybe,train"]
    said = {found.why: found.is_fault for found in fallen_out(cohort_of(tmp_path, rows).dropped, 1)}
    assert said == {
        "10 or more rows of the table: a column that the study needs is empty. "
        "Fill in what is known; the study says for which columns something stands in.": True,
        "fewer than 10 rows of the table: the label is none of the study's classes. "
        "Write a class's name as the study spells it, or its number.": True,
    }
