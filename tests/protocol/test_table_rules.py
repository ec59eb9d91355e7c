"""What a tabular study must say, and what is refused with reason and remedy."""

from typing import Any

import pytest

from protocol.errors import SpecificationError
from protocol.study import StudySpec, parse_study


def study_of(**changes: Any) -> StudySpec:
    study: dict[str, Any] = {
        "name": "table",
        "kind": "tabular",
        "table": {"features": [{"column": "age", "mean": 60, "deviation": 10}, {"column": "marker"}]},
        "label": {"column": "died", "classes": ["no", "yes"]},
        "network": {"name": "linear"},
        "rounds": 2,
        "privacy": {"epsilon": None},
    }
    for path, value in changes.items():
        *parts, last = path.split("__")
        inner = study
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return parse_study(study)


def survival_of(**changes: Any) -> StudySpec:
    return study_of(**{"label__time_column": "days", "training__images_per_patient": 1, **changes})


def test_a_table_and_survival_are_legal() -> None:
    assert not study_of().is_survival
    assert survival_of().is_survival


def test_a_study_of_images_is_none_of_survival() -> None:
    assert parse_study({"name": "a", "label": {"classes": ["a", "b"]}, "network": {"name": "convnet"}, "rounds": 1,
                        "privacy": {"epsilon": None}}).kind == "classification"  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"table__features": []}, "names the columns"),
        ({"table__features": [{"column": "age"}, {"column": "age"}]}, "stands twice"),
        ({"table__features": [{"column": "died"}]}, "none of which is a feature"),
        ({"table__features": [{"column": "patient_id"}]}, "none of which is a feature"),
        ({"cohort__modality": ["DX"]}, "no DICOM header"),
        ({"cohort__age_min_years": 18}, "no DICOM header"),
        ({"preprocessing__size": [32, 32]}, "it is of images"),
        ({"kind": "classification"}, "'classification' is of images"),
        ({"table__features": [{"column": "age", "deviation": 0}]}, "greater than 0"),
    ],
)
def test_what_a_table_cannot_have_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecificationError, match=said):
        study_of(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"privacy__epsilon": 8.0, "privacy__delta": 1e-4, "participants__training_patients": 100}, "Cox"),
        ({"evaluation__noise_epsilon": 1.0}, "concordance counts pairs"),
        ({"training__images_per_patient": 4}, "at risk once"),
        (
            {"secure_aggregation": {"method": "masking", "maximum_sites": 8, "maximum_weight": 500},
             "participants__minimum_sites": 4},
            "pairs of patients are not",
        ),
        ({"label__time_column": "died"}, "none of which is a feature"),
    ],
)  # fmt: skip
def test_survival_is_refused_where_its_promise_would_not_hold(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecificationError, match=said):
        survival_of(**changes)


def test_a_site_may_be_hidden_as_a_whole_in_a_survival_study() -> None:
    site_level = {"epsilon": 8.0, "delta": 1e-4, "unit": "site", "mechanism": "site-level"}
    participants = {"training_patients": 100, "minimum_sites": 10}
    assert survival_of(privacy=site_level, participants=participants, strategy__weighting="equal").is_survival


def test_the_cohorts_minimum_may_be_chosen() -> None:
    assert study_of(cohort__minimum_patients=3).cohort.minimum_patients == 3
