"""labels.csv as people write it."""

from pathlib import Path

import pytest

from protocol.label import Label
from protocol.messages import Reason
from site_node.cohort.labels import (
    CONTRADICTION,
    FOREIGN_SPLIT,
    FOREIGN_VALUE,
    NO_INSTANCE,
    NO_VALUE,
    Labels,
    read_labels,
)
from site_node.errors import LabelsError

LABEL = Label(column="label", classes=["normal", "pneumonia"])
HEADER = "patient_id,sop_instance_uid,label,split,view\n"


def labels_of(folder: Path, content: str | bytes) -> Labels:
    path = folder / "labels.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_labels(path, LABEL)


def test_rows_are_read_with_their_other_columns(tmp_path: Path) -> None:
    labels = labels_of(tmp_path, HEADER + "P1,1.2,1,test,AP\nP2,1.3,0,,PA\n")
    assert (labels.rows["1.2"].label, labels.rows["1.2"].split) == (1, "test")
    assert labels.rows["1.2"].others == {"view": "AP"}
    assert labels.rows["1.3"].split is None
    assert labels.dropped == {}


@pytest.mark.parametrize("text", ["1", "1.0", "pneumonia", " Pneumonia "])
def test_a_label_is_a_number_or_a_class_name(tmp_path: Path, text: str) -> None:
    assert labels_of(tmp_path, HEADER + f"P1,1.2,{text},,\n").rows["1.2"].label == 1


@pytest.mark.parametrize("word", ["val", "valid", "VALIDATION"])
def test_usual_words_for_splits_are_understood(tmp_path: Path, word: str) -> None:
    assert labels_of(tmp_path, HEADER + f"P1,1.2,1,{word},\n").rows["1.2"].split == "validation"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",1.2,1,,", NO_INSTANCE),
        ("P1,,1,,", NO_INSTANCE),
        ("P1,1.2,,,", NO_VALUE),
        ("P1,1.2,2,,", FOREIGN_VALUE),
        ("P1,1.2,-1,,", FOREIGN_VALUE),
        ("P1,1.2,nan,,", FOREIGN_VALUE),
        ("P1,1.2,0.5,,", FOREIGN_VALUE),
        ("P1,1.2,maybe,,", FOREIGN_VALUE),
        ("P1,1.2,1,holdout,", FOREIGN_SPLIT),
        ("P1", NO_INSTANCE),
    ],
)
def test_a_faulty_row_falls_out_and_is_counted(tmp_path: Path, row: str, reason: str) -> None:
    labels = labels_of(tmp_path, HEADER + row + "\nP2,1.9,0,,\n")
    assert set(labels.rows) == {"1.9"}
    assert labels.dropped == {reason: 1}


def test_rows_that_contradict_each_other_all_fall_out(tmp_path: Path) -> None:
    labels = labels_of(tmp_path, HEADER + "P1,1.2,1,,\nP1,1.2,0,,\nP2,1.3,0,,\nP2,1.3,0,,\n")
    assert set(labels.rows) == {"1.3"}
    assert labels.dropped == {CONTRADICTION: 1}


@pytest.mark.parametrize(
    "content",
    [
        "patient_id;sop_instance_uid;label\nP1;1.2;1\n",
        "\ufeffpatient_id,sop_instance_uid,label\r\nP1,1.2,1\r\n",
        " patient_id , sop_instance_uid,label\nP1, 1.2 ,1\n",
        "patient_id,sop_instance_uid,label,note\nP1,1.2,1,Köln\n".encode("latin-1"),
        "patient_id,sop_instance_uid,label\nP1,1.2,1,and,more,columns\n",
    ],
    ids=["semicolons", "byte order mark", "blanks", "latin-1", "more values than columns"],
)
def test_what_spreadsheets_write_is_understood(tmp_path: Path, content: str | bytes) -> None:
    assert labels_of(tmp_path, content).rows["1.2"].label == 1


@pytest.mark.parametrize("missing", ["patient_id", "sop_instance_uid", "label"])
def test_a_missing_column_is_named(tmp_path: Path, missing: str) -> None:
    with pytest.raises(LabelsError, match=f"lacks the column '{missing}'"):
        labels_of(tmp_path, HEADER.replace(missing, "other"))


@pytest.mark.parametrize(
    "content", ["GREY,1.2.840,1,test\n", 'GREY,"' + "x" * 200_000, HEADER + 'GREY,"' + "1" * 200_000]
)
def test_an_error_tells_nothing_of_the_file_s_content(tmp_path: Path, content: str) -> None:
    with pytest.raises(LabelsError) as caught:
        labels_of(tmp_path, content)
    assert caught.value.reason is Reason.LABELS_UNUSABLE
    assert caught.value.__cause__ is None
    assert not any(cell in str(caught.value) for cell in ("GREY", "1.2.840", "xxx", "111", "view"))


def test_an_empty_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="lacks the columns 'patient_id', 'sop_instance_uid', 'label'"):
        labels_of(tmp_path, "")
    with pytest.raises(LabelsError, match="cannot be read"):
        read_labels(tmp_path / "gone.csv", LABEL)


def test_a_field_without_end_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="not a table"):
        labels_of(tmp_path, HEADER + 'P1,"' + "x" * 200_000)
