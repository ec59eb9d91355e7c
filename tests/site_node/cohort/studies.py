"""Small studies for the tests of this folder."""

from typing import Any

from protocol.study import StudySpec, parse_study


def study_of(**parts: Any) -> StudySpec:
    """Return a small study; `cohort`, `label`, `splits` are merged over defaults that admit small hospitals."""
    data: dict[str, Any] = {
        "name": "tiny",
        "cohort": {"minimum_patients": 1} | parts.get("cohort", {}),
        "label": {"classes": ["normal", "pneumonia"]} | parts.get("label", {}),
        "splits": parts.get("splits", {"validation": 0.1, "test": 0.2}),
        "network": {"name": "densenet"},
        "rounds": 2,
        "privacy": {"epsilon": None},
    }
    return parse_study(data)
