"""What fell out is said with its remedy, and small numbers are not."""

from site_node.cohort.cohort import BELOW_MINIMUM, ONE_CLASS, SEVERAL_SPLITS
from site_node.cohort.fallen_out import OF_THE_STUDY, fallen_out
from site_node.cohort.matching import ORPHAN, UNLABELLED


def test_each_reason_is_said_with_its_number_and_remedy() -> None:
    unlabelled, orphan = fallen_out({UNLABELLED: 12, ORPHAN: 34}, 10)
    assert unlabelled.why.startswith("12 images: it has no row in labels.csv. Add their rows")
    assert orphan.why.startswith("34 rows of labels.csv: no usable image")
    assert "wardround site index" in orphan.why
    assert [found.is_fault for found in (unlabelled, orphan)] == [True, True]


def test_a_small_number_is_hidden_and_patients_are_never_counted() -> None:
    [small] = fallen_out({UNLABELLED: 19}, 20)
    assert small.why.startswith("fewer than 20 images: ")
    [least] = fallen_out({UNLABELLED: 9}, 1)
    assert least.why.startswith("fewer than 10 images: ")
    [patients] = fallen_out({SEVERAL_SPLITS: 57}, 10)
    assert "57" not in patients.why


def test_why_the_site_does_not_train_is_said_elsewhere() -> None:
    assert list(fallen_out({BELOW_MINIMUM: 40, ONE_CLASS: 40}, 10)) == []


def test_an_unmet_criterion_is_no_fault() -> None:
    [found] = fallen_out({"image: its sex is none that the study asks for": 12}, 10)
    assert found.why.endswith(OF_THE_STUDY)
    assert not found.is_fault
