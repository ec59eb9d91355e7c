"""Criteria, one at a time."""

from typing import Any

import pytest

from protocol.cohort_terms import Cohort as Criteria
from site_node.cohort.query import Facts, unmet_criterion

CHEST = Facts("DX", "CHEST", "PA", "F", 65.9)


@pytest.mark.parametrize(
    "criteria",
    [
        {},
        {"modality": ["CR", "DX"]},
        {"modality": ["dx"]},
        {"body_part": ["Chest"]},
        {"view": ["AP", "PA"]},
        {"sex": ["F"]},
        {"age_min_years": 65},
        {"age_max_years": 65},
    ],
)
def test_a_met_criterion_admits(criteria: dict[str, Any]) -> None:
    assert unmet_criterion(CHEST, Criteria(**criteria)) is None


@pytest.mark.parametrize(
    ("criteria", "words"),
    [
        ({"modality": ["CT"]}, "modality is none"),
        ({"body_part": ["ABDOMEN"]}, "body part is none"),
        ({"view": ["AP"]}, "view is none"),
        ({"sex": ["M", "O"]}, "sex is none"),
        ({"age_min_years": 66}, "outside the study's range"),
        ({"age_max_years": 64}, "outside the study's range"),
    ],
)
def test_an_unmet_criterion_says_which(criteria: dict[str, Any], words: str) -> None:
    assert words in (unmet_criterion(CHEST, Criteria(**criteria)) or "")


@pytest.mark.parametrize(
    "criteria", [{"modality": ["DX"]}, {"view": ["PA"]}, {"sex": ["F"]}, {"age_min_years": 0}, {"age_max_years": 130}]
)
def test_what_is_not_known_meets_no_criterion(criteria: dict[str, Any]) -> None:
    silent = Facts(None, None, None, None, None)
    assert "not known" in (unmet_criterion(silent, Criteria(**criteria)) or "")
    assert unmet_criterion(silent, Criteria(**criteria), passing_over_silence=True) is None


def test_silence_that_is_passed_over_hides_no_contradiction() -> None:
    facts = Facts("DX", None, "PA", "F", 65.9)
    criteria = Criteria.model_validate({"body_part": ["CHEST"], "view": ["AP"]})
    assert "body part is not known" in (unmet_criterion(facts, criteria) or "")
    assert "view is none" in (unmet_criterion(facts, criteria, passing_over_silence=True) or "")
