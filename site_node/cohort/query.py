"""A study's criteria applied to what is known of an image. Pure.

A criterion that the study leaves open admits every image; a criterion that it sets admits no image whose header (or
labels.csv, where the header is silent) does not say.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from protocol.cohort_terms import Cohort as Criteria
from site_node.cohort.terms import begins_with, holds_words, same_term
from site_node.dicom.headers import InstanceHeader, date_of

Meets = Callable[[str, str], bool]
UNKNOWN = "is not known, and the study asks for it"


@dataclass(frozen=True)
class Facts:
    """What criteria ask for. What nobody says is None."""

    modality: str | None
    body_part: str | None
    view: str | None
    sex: str | None
    age_years: float | None
    manufacturer: str | None = None
    protocol: str | None = None
    series_description: str | None = None
    day: date | None = None


def facts_of(header: InstanceHeader, others: Mapping[str, str]) -> Facts:
    """Join a header with the other columns of its row in labels.csv; the header goes first."""
    return Facts(
        modality=header.modality or _term(others.get("modality")),
        body_part=header.body_part or _term(others.get("body_part")),
        view=header.view or _term(others.get("view")),
        sex=header.sex or _term(others.get("sex")),
        age_years=header.age_years if header.age_years is not None else _number(others.get("age")),
        manufacturer=header.manufacturer or _term(others.get("manufacturer")),
        protocol=header.protocol or _term(others.get("protocol")),
        series_description=header.series_description or _term(others.get("series_description")),
        day=date_of(header.study_date) or date_of(others.get("study_date")),
    )


def unmet_criterion(facts: Facts, criteria: Criteria, *, passing_over_silence: bool = False) -> str | None:
    """Return the reason why an image does not belong to the cohort, or None if it does.

    `passing_over_silence`: what is not known stands against no image, because a row of labels.csv could still say it.
    """
    reasons = _unmet(facts, criteria)
    return next((why for why in reasons if not (passing_over_silence and why.endswith(UNKNOWN))), None)


def _unmet(facts: Facts, criteria: Criteria) -> Iterator[str]:
    terms: tuple[tuple[str, str | None, Collection[str], Meets], ...] = (
        ("modality", facts.modality, criteria.modality, _means("modality")),
        ("body part", facts.body_part, criteria.body_part, _means("body part")),
        ("view", facts.view, criteria.view, _means("view")),
        ("sex", facts.sex, criteria.sex, _means("sex")),
        ("manufacturer", facts.manufacturer, criteria.manufacturer, begins_with),
        ("protocol", facts.protocol, criteria.protocol, holds_words),
        ("series description", facts.series_description, criteria.series_description, holds_words),
    )
    for name, value, wanted, meets in terms:
        if wanted and value is None:
            yield f"image: its {name} {UNKNOWN}"
        if wanted and value is not None and not any(meets(value, word) for word in wanted):
            yield f"image: its {name} is none that the study asks for"
    day = _unmet_day(facts.day, criteria.date_from, criteria.date_until)
    age = _unmet_age(facts.age_years, criteria.age_min_years, criteria.age_max_years)
    yield from (unmet for unmet in (day, age) if unmet is not None)


def _means(kind: str) -> Meets:
    return lambda value, word: same_term(kind, value) == same_term(kind, word)


def _unmet_day(day: date | None, first: date | None, last: date | None) -> str | None:
    if first is None and last is None:
        return None
    if day is None:
        return f"image: its date {UNKNOWN}"
    if (first is not None and day < first) or (last is not None and day > last):
        return "image: its date is outside the study's"
    return None


def _unmet_age(age: float | None, low: int | None, high: int | None) -> str | None:
    if low is None and high is None:
        return None
    if age is None:
        return f"image: the patient's age {UNKNOWN}"
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
