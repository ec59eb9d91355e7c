"""A study's criteria applied to what is known of an image. Pure.

A criterion that the study leaves open admits every image; a criterion that it sets admits no image whose header (or
labels.csv, where the header is silent) does not say.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from protocol.study_parts import Cohort as Criteria
from site_node.dicom.headers import InstanceHeader


@dataclass(frozen=True)
class Facts:
    """What criteria ask for. Terms are in capitals; what nobody says is None."""

    modality: str | None
    body_part: str | None
    view: str | None
    sex: str | None
    age_years: float | None


def facts_of(header: InstanceHeader, others: Mapping[str, str]) -> Facts:
    """Join a header with the other columns of its row in labels.csv; the header goes first."""
    return Facts(
        modality=header.modality or _term(others.get("modality")),
        body_part=header.body_part or _term(others.get("body_part")),
        view=header.view or _term(others.get("view")),
        sex=header.sex or _term(others.get("sex")),
        age_years=header.age_years if header.age_years is not None else _number(others.get("age")),
    )


def unmet_criterion(facts: Facts, criteria: Criteria) -> str | None:
    """Return the reason why an image does not belong to the cohort, or None if it does."""
    terms = (
        ("modality", facts.modality, criteria.modality),
        ("body part", facts.body_part, criteria.body_part),
        ("view", facts.view, criteria.view),
        ("sex", facts.sex, criteria.sex),
    )
    for name, value, wanted in terms:
        reason = _unmet_term(name, value, wanted)
        if reason:
            return reason
    return _unmet_age(facts.age_years, criteria.age_min_years, criteria.age_max_years)


def _unmet_term(name: str, value: str | None, wanted: Collection[str]) -> str | None:
    if not wanted:
        return None
    if value is None:
        return f"image: its {name} is not known, and the study asks for it"
    admitted = {word.strip().upper() for word in wanted}
    return None if value in admitted else f"image: its {name} is none that the study asks for"


def _unmet_age(age: float | None, low: int | None, high: int | None) -> str | None:
    if low is None and high is None:
        return None
    if age is None:
        return "image: the patient's age is not known, and the study asks for it"
    # whole years, as people count them: 65 includes the day before the 66th birthday
    if (low is not None and age < low) or (high is not None and int(age) > high):
        return "image: the patient's age is outside the study's range"
    return None


def _term(text: str | None) -> str | None:
    return (text or "").strip().upper() or None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number <= 150 else None
