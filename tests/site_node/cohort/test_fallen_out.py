"""What fell out is said with its remedy, and small numbers are not."""

from site_node.cohort.cohort import BELOW_MINIMUM, ONE_CLASS, SEVERAL_SPLITS
from site_node.cohort.contents import UNDECODABLE
from site_node.cohort.fallen_out import OF_THE_STUDY, fallen_out
from site_node.cohort.label_records import STRAY_REPORT
from site_node.cohort.labels import CONTRADICTION, FOREIGN_VALUE
from site_node.cohort.masks import NO_IMAGE_NAMED, NO_MASK, SEVERAL_MASKS, UNUSABLE
from site_node.cohort.matching import ORPHAN, UNLABELLED


def test_each_reason_is_said_with_its_number_and_remedy() -> None:
    unlabelled, orphan = fallen_out({UNLABELLED: 12, ORPHAN: 34}, 10)
    assert unlabelled.why.startswith("10 or more images: it has no row in labels.csv. Add their rows")
    assert orphan.why.startswith("30 or more rows of labels.csv: no usable image")
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


def test_each_reason_is_filed_under_what_it_concerns() -> None:
    reasons = {
        **{CONTRADICTION: "conflicts", SEVERAL_MASKS: "conflicts", ORPHAN: "orphans", STRAY_REPORT: "orphans"},
        **{UNLABELLED: "unlabelled", NO_MASK: "unlabelled", UNDECODABLE: "unreadable", FOREIGN_VALUE: "labels"},
        **{UNUSABLE + "the mask has marks outside the picture": "unreadable"},
        **{"image: its sex is none that the study asks for": "criteria"},
    }
    for reason, concern in reasons.items():
        [found] = fallen_out({reason: 12}, 10)
        assert found.concern == concern
        assert found.why == f"{found.says}. {found.remedy}"


def test_reports_and_masks_are_counted_as_what_they_are() -> None:
    [stray] = fallen_out({STRAY_REPORT: 12}, 10)
    assert stray.says.startswith("10 or more structured reports: no image that it names")
    [nobodys] = fallen_out({NO_IMAGE_NAMED: 3}, 10)
    assert nobodys.says.startswith("fewer than 10 rows of masks.csv: ")
