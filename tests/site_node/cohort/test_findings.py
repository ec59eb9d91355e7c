from pathlib import Path

import pytest

from protocol.label import Label
from site_node.cohort.findings import Findings, patient_findings, patient_label
from site_node.cohort.labels import FOREIGN_VALUE, NO_VALUE, read_labels
from site_node.errors import LabelsError

FINDINGS = Label(classes=["Effusion", "Mass"], several=True)
NAMED = Label(classes=["Effusion", "Mass"], several=True, separator="|", column="findings")


@pytest.mark.parametrize(
    ("rule", "labels", "label"),
    [
        ("any", [0, 2, 1], 2),
        ("all", [1, 2, 1], 1),
        ("majority", [2, 0, 2], 2),
        ("majority", [2, 1, 0], 0),
        ("majority", [2, 1, 1, 2], 1),
        ("majority", [0, 1], 0),
    ],
)
def test_of_several_classes_the_last_the_first_or_the_most_frequent_is_the_patients(
    rule: str, labels: list[int], label: int
) -> None:
    assert patient_label(labels, rule) == label  # type: ignore[arg-type]


def test_findings_are_joined_one_by_one_over_the_images_that_know_them() -> None:
    images: list[Findings] = [(1, None, 0), (0, None, None), (0, None, 0)]
    assert patient_findings(images, "any") == (1, None, 0)
    assert patient_findings(images, "all") == (0, None, 0)
    assert patient_findings(images, "majority") == (0, None, 0)


def read(tmp_path: Path, label: Label, header: str, *rows: str) -> tuple[list[Findings], dict[str, int]]:
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([header, *rows]))
    labels = read_labels(path, label)
    return [row.findings for row in labels.rows.values()], dict(labels.dropped)


def test_each_finding_has_a_column_of_its_own_and_may_be_unknown(tmp_path: Path) -> None:
    rows = ["P1,1.1,1,0", "P2,1.2,1.0,", "P3,1.3,-1,yes", "P4,1.4,,", "P5,1.5,maybe,1"]
    findings, dropped = read(tmp_path, FINDINGS, "patient_id,sop_instance_uid,Effusion,Mass", *rows)
    assert findings == [(1, 0), (1, None), (None, 1)]
    assert dropped == {NO_VALUE: 1, FOREIGN_VALUE: 1}


def test_a_column_of_names_says_that_what_is_not_named_is_absent(tmp_path: Path) -> None:
    rows = ["P1,1.1,mass|Effusion", "P2,1.2,Mass", "P3,1.3,No finding", "P4,1.4,", "P5,1.5,Nodule|Mass"]
    findings, dropped = read(tmp_path, NAMED, "patient_id,sop_instance_uid,findings", *rows)
    assert findings == [(1, 1), (0, 1), (0, 0)]
    assert dropped == {NO_VALUE: 1, FOREIGN_VALUE: 1}


def test_a_missing_column_of_a_finding_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="'Mass'"):
        read(tmp_path, FINDINGS, "patient_id,sop_instance_uid,Effusion", "P1,1.1,1")
