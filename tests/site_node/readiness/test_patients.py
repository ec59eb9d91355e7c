"""What is shown of patients: no small count, and none that follows from a sum."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.study import StudySpec
from site_node.cohort.cohort import Cohort, Patient
from site_node.readiness.patients import classes_of, figures_of, lines_of, shown
from tests.site_node.cohort.studies import study_of

STUDY = study_of()


def cohort_of(train: list[int], test: list[int]) -> Cohort:
    patients = [Patient(f"P{n}", (), label, "train") for n, label in enumerate(train)]
    return Cohort((*patients, *(Patient(f"T{n}", (), label, "test") for n, label in enumerate(test))), "sha256:0")


def test_a_small_count_hides_another_beside_it() -> None:
    assert shown({"normal": 40, "pneumonia": 3}, 10) == {"normal": None, "pneumonia": None}
    assert shown({"a": 40, "b": 30, "c": 3}, 10) == {"a": 40, "b": None, "c": None}
    assert shown({"a": 40, "b": 6, "c": 4}, 10) == {"a": 40, "b": None, "c": None}
    assert shown({"a": 40, "b": 10}, 10) == {"a": 40, "b": 10}


def test_nobody_looks_like_few() -> None:
    assert shown({"normal": 40, "pneumonia": 0}, 10) == {"normal": 40, "pneumonia": None}


def test_a_count_that_leaves_few_of_the_whole_is_hidden() -> None:
    """Of 200 patients five lack an edema, or it is not known; of 50 who have it, nobody lacks it."""
    assert shown({"edema": 195, "mass": 60}, 10, 200) == {"edema": None, "mass": 60}
    assert shown({"absent": 0, "present": 50}, 10, 50) == {"absent": None, "present": None}


def test_two_cohorts_that_differ_by_one_patient_are_shown_alike() -> None:
    one, other = (figures_of(cohort_of([0] * 25 + [1] * n, [0] * 15 + [1] * 15), STUDY, 10) for n in (22, 23))
    assert one == other


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 50), min_size=1), st.integers(1, 20))
def test_what_is_hidden_cannot_be_told_from_the_sum(counts: dict[str, int], least: int) -> None:
    result = shown(counts, least, sum(counts.values()))
    hidden = [counts[name] for name, count in result.items() if count is None]
    for name, count in result.items():
        assert count is None or count == counts[name] // 10 * 10
        assert count is None or least <= counts[name] <= sum(counts.values()) - least
    assert sum(hidden) == 0 or sum(hidden) >= least or len(hidden) == len(counts)


def test_figures_are_by_split_and_by_class() -> None:
    figures = figures_of(cohort_of([0] * 20 + [1] * 15, [0] * 12 + [1]), STUDY, 10)
    assert figures["patients"] == 40
    assert figures["by_split"] == {"train": 30, "validation": None, "test": 10}
    assert figures["classes"] == {
        "train": {"normal": 20, "pneumonia": 10},
        "test": {"normal": None, "pneumonia": None},
    }
    lines = list(lines_of(figures))
    assert lines[1] == "  train: 30 patients (normal: 20; pneumonia: 10)"
    assert lines[2] == "  validation: patients hidden"
    assert lines[-1] == "  in tens; hidden: fewer than 10, or what would tell such a number"


def test_findings_are_counted_by_themselves() -> None:
    study: StudySpec = study_of(label={"classes": ["nodule", "effusion"], "several": True})
    patients = (Patient("a", (), 1, "train", findings=(1, None)), Patient("b", (), 1, "train", findings=(1, 1)))
    assert classes_of(study, patients) == {"nodule": 2, "effusion": 1}
