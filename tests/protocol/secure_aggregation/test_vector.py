"""Rounding, bounds and weights: what fits the ring fits for every number of sites, and the mean comes back."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import MaskingError, SpecificationError
from protocol.secure_aggregation.fixed_point import MOST_LEVELS, cut_fraction, dequantise, quantise
from protocol.secure_aggregation.ring import Ring
from protocol.secure_aggregation.vector import (
    LARGEST_WEIGHT,
    VectorTerms,
    levels_of,
    ring_of,
    vector_terms,
    weight_digits,
    weights_sum,
)
from protocol.study import StudySpec, parse_study
from protocol.study_parts import SecureAggregation

MASKING = {"method": "masking", "maximum_sites": 8, "maximum_weight": 100}


def study_of(**changes: Any) -> StudySpec:
    data: dict[str, Any] = {
        "name": "tiny",
        "cohort": {"modality": ["DX"]},
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "densenet"},
        "rounds": 2,
        "privacy": {"epsilon": None},
        "participants": {"minimum_sites": 4},
        "transport": {"upload": []},
        "secure_aggregation": MASKING,
    }
    return parse_study({**data, **changes})


@settings(max_examples=60, deadline=None)
@given(sites=st.integers(4, 4096), bits=st.one_of(st.none(), st.integers(2, 20)))
def test_the_sum_of_the_most_sites_at_their_bounds_stays_in_the_ring(sites: int, bits: int | None) -> None:
    terms = SecureAggregation(method="masking", maximum_sites=sites, value_bits=bits)
    levels, ring = levels_of(terms), ring_of(terms)
    assert levels * sites <= ring.largest  # whatever the specification's fields allow
    for sign in (1, -1):
        bound = ring.encode(np.array([sign * levels]))
        total = np.zeros(1, ring.dtype)
        for _ in range(sites):
            total += bound
        assert ring.decode(total).tolist() == [sign * levels * sites]


def test_terms_under_which_a_sum_could_leave_the_ring_do_not_exist() -> None:
    VectorTerms("quantised", Ring(16), values=1, bound=4095, unit=1.0, maximum_sites=8)
    with pytest.raises(MaskingError, match="does not fit 16 bits"):
        VectorTerms("quantised", Ring(16), values=1, bound=4096, unit=1.0, maximum_sites=8)
    with pytest.raises(MaskingError, match="weights"):
        VectorTerms("quantised", Ring(16), values=1, bound=1, unit=1.0, maximum_sites=4370)


@settings(max_examples=60, deadline=None)
@given(
    levels=st.integers(1, MOST_LEVELS),
    value_range=st.floats(1e-6, 1e6),
    values=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30),
    draw=st.sampled_from([0, 1, 2**31, 2**32 - 1]),
)
def test_no_value_is_rounded_beyond_its_bound(levels: int, value_range: float, values: list[float], draw: int) -> None:
    array = np.array([*values, value_range, -value_range])
    found = quantise(array, value_range, levels, np.full(array.size, draw, np.uint32))
    assert int(np.abs(found).max()) <= levels
    inside = np.abs(array) <= value_range
    assert np.all(np.abs(found - array * (levels / value_range))[inside] < 1 + 1e-9)


def test_rounding_is_right_on_average() -> None:
    draws = np.random.default_rng(1).integers(0, 2**32, 400_000, dtype=np.uint32)
    for value in (0.3, -0.3, 0.49, 0.0):
        found = quantise(np.full(draws.size, value), 1.0, 10, draws)
        deviation = 0.5 / np.sqrt(draws.size)
        assert abs(float(found.mean()) - 10 * value) <= 5 * deviation
        assert len(np.unique(found)) <= 2


def test_what_is_not_finite_is_refused_and_what_is_cut_is_counted() -> None:
    with pytest.raises(MaskingError, match="finite"):
        quantise(np.array([np.nan]), 1.0, 10, np.zeros(1, np.uint32))
    with pytest.raises(MaskingError, match="weight of at most 1"):
        quantise(np.array([0.0]), 1.0, 10, np.zeros(1, np.uint32), weight=1.5)
    assert cut_fraction(np.array([0.4, 0.6, -2.0, 0.0]), 0.5) == 0.5
    assert cut_fraction(np.array([0.6]), 0.5, weight=0.5) == 0.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, LARGEST_WEIGHT), min_size=1, max_size=64), st.sampled_from([16, 32]))
def test_weights_add_up_digit_by_digit(weights: list[int], bits: int) -> None:
    ring = Ring(bits)
    total = np.add.reduce([weight_digits(weight, ring) for weight in weights], dtype=ring.dtype)
    assert weights_sum(total) == sum(weights)


def test_a_weighted_mean_comes_back_to_within_a_step() -> None:
    terms = vector_terms(study_of(), parameters=3)
    assert (terms.bound, terms.ring.bits, terms.payload_bytes, terms.candidate_bytes) == (4095, 16, 18, 6)
    updates = {40: np.array([0.1, -0.2, 0.3]), 250: np.array([0.2, 0.1, -0.4])}  # 250 patients weigh as 100
    rounded = [
        quantise(update, 0.5, terms.bound, np.zeros(3, np.uint32), terms.share_of(patients))
        for patients, update in updates.items()
    ]
    total = sum(terms.weight_of(patients) for patients in updates)
    assert total == 140
    mean = dequantise(np.sum(rounded, axis=0), terms.unit, terms.divisor(total))
    expected = (40 * updates[40] + 100 * updates[250]) / 140
    assert np.abs(mean - expected).max() < 2 * terms.unit * 100 / 140


def test_equal_weights_need_no_largest_weight() -> None:
    study = study_of(strategy={"weighting": "equal"}, secure_aggregation={"method": "masking", "maximum_sites": 5})
    terms = vector_terms(study, 10)
    assert (terms.maximum_weight, terms.share_of(1000), terms.bound) == (1, 1.0, 6553)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"participants": {"minimum_sites": 3}}, "Set it to 4 or more"),
        ({"participants": {"minimum_sites": 9}}, "below participants.minimum_sites 9"),
        ({"transport": {"upload": ["zstandard"]}}, "look like chance and cannot be compressed"),
        ({"secure_aggregation": {"method": "masking", "maximum_weight": 1}}, "maximum_sites: required"),
        ({"secure_aggregation": {"method": "masking", "maximum_sites": 8}}, "maximum_weight: required"),
        ({"secure_aggregation": {**MASKING, "maximum_sites": 300}}, "Set value_bits, 12 for example"),
    ],
)
def test_a_study_whose_masks_cannot_keep_their_promise_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        study_of(**change)
