"""Counts of ordered pairs: by hand, against the definition pair by pair, and added up."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocol.concordance import PairCounts, merge_pairs, summarise_pairs
from protocol.errors import MetricError

Patients = list[tuple[int, int, bool]]
PATIENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.booleans()), max_size=12)
"""(risk, time, event) of each."""


def counted(patients: Patients) -> PairCounts:
    risks, times, events = (
        (np.array(column) for column in zip(*patients, strict=True)) if patients else (np.array([]),) * 3
    )
    return PairCounts.of(risks.astype(float), times.astype(float), events.astype(bool))


def first_of(one: tuple[int, int, bool], other: tuple[int, int, bool]) -> tuple[int, int, bool] | None:
    """Return who is known to have had the event first."""
    earlier, later = sorted((one, other), key=lambda patient: (patient[1], not patient[2]))
    if not earlier[2] or (earlier[1] == later[1] and later[2]):
        return None
    return earlier


def test_three_patients_by_hand() -> None:
    # died after 1 with the largest risk, died after 2 with the smallest, left after 3 in between
    counts = counted([(3, 1, True), (1, 2, True), (2, 3, False)])
    assert counts == PairCounts(patients=3, events=2, comparable=3, concordant=2, tied=0)
    assert summarise_pairs(counts).concordance == 2 / 3


def test_who_left_before_an_event_is_not_compared_and_who_left_at_its_time_is() -> None:
    assert counted([(0, 1, False), (1, 2, True)]).comparable == 0
    assert counted([(0, 2, False), (1, 2, True)]).concordant == 1


def test_two_events_at_the_same_time_are_not_compared() -> None:
    assert counted([(0, 2, True), (1, 2, True)]).comparable == 0


def test_equal_risks_count_one_half() -> None:
    counts = counted([(1, 1, True), (1, 2, True)])
    assert (counts.tied, summarise_pairs(counts).concordance) == (1, 0.5)


@given(PATIENTS)
def test_counts_are_those_of_the_definition(patients: Patients) -> None:
    expected = PairCounts(patients=len(patients), events=sum(event for _, _, event in patients))
    comparable = concordant = tied = 0
    for one, other in combinations(patients, 2):
        first = first_of(one, other)
        if first is None:
            continue
        second = other if first is one else one
        comparable, tied = comparable + 1, tied + (first[0] == second[0])
        concordant += first[0] > second[0]
    update = {"comparable": comparable, "concordant": concordant, "tied": tied}
    assert counted(patients) == expected.model_copy(update=update)


@given(st.lists(PATIENTS, min_size=1, max_size=4))
def test_hospitals_counts_add(hospitals: list[Patients]) -> None:
    merged = merge_pairs([counted(patients) for patients in hospitals])
    assert merged.comparable == sum(counted(patients).comparable for patients in hospitals)
    assert merged.patients == sum(map(len, hospitals))


def test_no_pair_says_nothing() -> None:
    assert summarise_pairs(PairCounts(patients=4)).concordance is None
    with pytest.raises(MetricError, match="At least one"):
        merge_pairs([])


@pytest.mark.parametrize("wrong", [{"events": 3}, {"comparable": 2}, {"comparable": 1, "concordant": 1, "tied": 1}])
def test_counts_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="not of pairs of so many patients"):
        PairCounts(**{"patients": 2, "events": 1, **wrong})


def test_what_is_not_finite_is_refused() -> None:
    one, event = np.array([1.0]), np.array([True])
    with pytest.raises(MetricError, match="finite"):
        PairCounts.of(np.array([math.nan]), one, event)
    with pytest.raises(MetricError, match="a risk, a time and an event"):
        PairCounts.of(one, np.array([1.0, 2.0]), event)
