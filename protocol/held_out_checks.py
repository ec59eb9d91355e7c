"""What is wrong with a site's held-out counts: one rule for the site's gate and for the hub. Pure.

For each field that counts travel in (`held_out.py`): what of one split's counts is not as the study's terms give it,
and how many patients they count.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from protocol.concordance import PairCounts
from protocol.held_out import CountsField, counts_field, epsilon_of_each
from protocol.metrics import ScoreHistograms, histogram_problem
from protocol.secure_aggregation.histograms import bins_of
from protocol.study import StudySpec
from protocol.study_parts import HeldOutSplit
from protocol.value_histograms import patients_counted, value_terms, values_problem

FIELDS: tuple[CountsField, ...] = get_args(CountsField)
MOST_PAIRS = 1 << 40
"""Sums of many hospitals' counts of pairs must stay countable."""


@dataclass(frozen=True)
class Rule:
    """How one split's counts are judged; `patients` is asked of un-noised ones only."""

    problem: Callable[[StudySpec, Any], str | None]
    patients: Callable[[Any], int]


def counts_problem(study: StudySpec, holder: object) -> str | None:
    """Say what is wrong with the held-out counts that a report or candidate holds in its fields, or None."""
    field = counts_field(study)
    if any(getattr(holder, other, None) for other in FIELDS if other != field):
        return "hold counts of another kind than the study's"
    own = counts_in(study, holder)
    if not own:
        return "hold nothing"
    if not set(own) <= set(study.evaluation.splits):
        return "hold a split that the study does not name"
    found = (RULES[field].problem(study, counts) for _, counts in sorted(own.items()))
    return next((f"have {problem}" for problem in found if problem is not None), None)


def patients_in(study: StudySpec, holder: object) -> int:
    """Return how many patients un-noised counts are of, all splits together."""
    return sum(RULES[counts_field(study)].patients(counts) for counts in counts_in(study, holder).values())


def counts_in(study: StudySpec, holder: object) -> Mapping[HeldOutSplit, Any]:
    """Return what a report or candidate holds in the study's own field, by split."""
    return getattr(holder, counts_field(study), None) or {}


def _of_one(study: StudySpec, histograms: ScoreHistograms) -> str | None:
    return histogram_problem(histograms, bins_of(study), epsilon_of_each(study))


def _of_classes(study: StudySpec, classes: Sequence[ScoreHistograms]) -> str | None:
    if len(classes) != len(study.label.classes):
        return "another number of classes than the study's"
    problem = next((found for own in classes if (found := _of_one(study, own)) is not None), None)
    if problem is not None or study.outcome != "multi-class" or study.evaluation.noise_epsilon is not None:
        return problem
    everyone = {_total(own) for own in classes}
    having = sum(count for own in classes for _, count in own.positive)
    return None if everyone == {having} else "patients who have not exactly one class"


def _of_pairs(_study: StudySpec, counts: PairCounts) -> str | None:
    return "more patients than a hospital has" if max(counts.patients, counts.comparable) > MOST_PAIRS else None


def _total(histograms: ScoreHistograms) -> int:
    return sum(count for _, count in (*histograms.negative, *histograms.positive))


RULES: Mapping[CountsField, Rule] = {
    "histograms": Rule(_of_one, _total),
    # Of findings, who is not known for one may be known for another: there are at least so many patients.
    "classes": Rule(_of_classes, lambda classes: max(map(_total, classes), default=0)),
    "pairs": Rule(_of_pairs, lambda counts: counts.patients),
    "values": Rule(lambda study, values: values_problem(values, value_terms(study)), patients_counted),
}
