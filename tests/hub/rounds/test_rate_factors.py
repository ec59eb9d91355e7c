"""The factor of each hospital's learning rate: worked out by hand, bounded, and one in the mean."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.aggregation.agreement import Course
from hub.rounds.rate_factors import (
    RatedSite,
    ahead_of_the_mean,
    balanced,
    next_rates,
    quality_part,
    rate_of,
    updates_part,
)
from protocol.site_rates import QualityFigures
from protocol.study import StudySpec, parse_study

NEARLY_EXACT = {"noise_epsilon": 1000.0}
"""Two deviations of this noise are less than a hundredth of a patient."""


QUALITY = {"quality_epsilon": 1000.0}


def study_with(**site_rates: Any) -> StudySpec:
    return parse_study(
        {
            "name": "tiny",
            "label": {"classes": ["no", "yes"]},
            "network": {"name": "convnet"},
            "rounds": 5,
            "privacy": {"epsilon": None},
            "site_rates": site_rates if site_rates.get("adapt") in (None, "updates") else QUALITY | site_rates,
        }
    )


THREE = [RatedSite(name, 1.0, 100) for name in ("anna", "bela", "clara")]
AGREEING = {"anna": Course(0.5, None), "bela": Course(0.5, None), "clara": Course(-0.5, None)}


def test_a_hospital_whose_update_pulls_against_the_others_learns_at_a_smaller_rate() -> None:
    numbers = next_rates(study_with(adapt="updates"), THREE, {}, AGREEING)
    # The mean is 1/6: 2^(1/3) = 1.2599 twice and 2^(-2/3) = 0.63; times 3 / 3.1498
    assert numbers["rate_updates.anna"] == 1.2599
    assert numbers["rate_updates.clara"] == 0.63
    assert numbers["rate.anna"] == numbers["rate.bela"] == 1.2
    assert numbers["rate.clara"] == 0.6
    assert numbers["agreement.clara"] == -0.5
    assert "trend.clara" not in numbers


def test_what_goes_on_adds_up_and_half_of_it_is_forgotten_each_round() -> None:
    value = 1.0
    for _ in range(60):
        value = updates_part(value, 0.5)
    assert value == pytest.approx(2.0, abs=1e-3)  # 4^0.5
    assert updates_part(4.0, None) == 4.0
    assert updates_part(4.0, 0.0) == 2.0


FOUR = [RatedSite(name, 1.0, 100) for name in "abcd"]


def test_a_hospital_that_was_not_asked_is_no_slower_than_others_of_the_same_course() -> None:
    study, numbers, seen = study_with(adapt="updates"), dict[str, float](), ""
    for asked in ("abc", "abc", "abc", "abcd", "abcd"):
        # Who was not in the version before has no update to compare with.
        courses = {name: Course(0.5, 0.5 if name in seen else None) for name in asked}
        numbers, seen = next_rates(study, FOUR, numbers, courses), asked
        assert [numbers[f"rate.{name}"] for name in "abcd"] == [1.0] * 4
    assert numbers["trend.d"] == 0.5


def test_hospitals_that_are_seldom_in_a_buffer_learn_as_fast_as_those_that_often_are() -> None:
    study, numbers = study_with(adapt="updates", least=0.01, most=100.0), dict[str, float]()
    for counted in ("ab", "ab", "ac", "ab", "ab", "bd", "ab"):
        numbers = next_rates(study, FOUR, numbers, {name: Course(0.6, 0.3) for name in counted})
    assert [numbers[f"rate.{name}"] for name in "abcd"] == [1.0] * 4


def test_a_common_rise_moves_nobody_and_a_missing_cosine_counts_as_the_mean() -> None:
    low = {"anna": Course(0.1, 0.0), "bela": Course(0.3, 0.2), "clara": Course(0.2, None)}
    high = {site: Course((c.agreement or 0) + 0.5, c.trend and c.trend + 0.5) for site, c in low.items()}
    high["anna"] = Course(0.6, 0.5)
    ahead = ahead_of_the_mean(THREE, low)
    assert ahead == pytest.approx({"anna": -0.2, "bela": 0.2, "clara": 0.0})
    assert ahead_of_the_mean(THREE, high) == pytest.approx(ahead)


def test_the_mean_is_weighted_as_the_updates_are_and_one_alone_is_not_moved() -> None:
    uneven = [RatedSite("large", 3.0, 300), RatedSite("small", 1.0, 100)]
    courses = {"large": Course(0.2, None), "small": Course(0.6, None)}
    assert ahead_of_the_mean(uneven, courses) == pytest.approx({"large": -0.1, "small": 0.3})
    assert ahead_of_the_mean(uneven, {"small": Course(None, 0.9)}) == {"small": 0.0}
    assert ahead_of_the_mean(uneven, {"gone": Course(0.3, None)}) == {}


def test_a_hospital_with_unreadable_images_and_uneven_labels_learns_at_a_smaller_rate() -> None:
    even = QualityFigures(positive=50, unreadable=0, repeated=0, **NEARLY_EXACT)
    uneven = QualityFigures(positive=10, unreadable=40, repeated=0, **NEARLY_EXACT)
    assert quality_part(even, 100) == 1.0
    assert quality_part(uneven, 100) == pytest.approx((0.36 * 0.6) ** (1 / 3), abs=2e-4)  # 4 x 0.1 x 0.9, times 0.6
    sites = [RatedSite("anna", 1.0, 100, even), RatedSite("bela", 1.0, 100, uneven)]
    numbers = next_rates(study_with(adapt="quality"), sites, {}, {})
    assert numbers["rate.anna"] == pytest.approx(1.25, abs=2e-4)  # 2 / 1.6
    assert numbers["rate.bela"] == pytest.approx(0.75, abs=2e-4)


def test_what_the_noise_can_explain_is_not_held_against_a_hospital() -> None:
    # Scale 3 / 1 = 3 has a standard deviation of 4.24: up to 8 patients more or less may be noise alone.
    noised = QualityFigures(positive=42, unreadable=8, repeated=5, noise_epsilon=1.0)
    assert quality_part(noised, 100) == 1.0
    assert quality_part(noised.model_copy(update={"unreadable": 60}), 100) < 0.9


def test_both_is_the_root_of_the_product() -> None:
    sites = [
        RatedSite("anna", 1.0, 40),
        RatedSite("bela", 1.0, 40, QualityFigures(positive=20, unreadable=40, repeated=0, **NEARLY_EXACT)),
    ]
    numbers = next_rates(study_with(adapt="both", least=0.01, most=100), sites, {"rate_updates.anna": 4.0}, {})
    # anna sqrt(1 x 4) = 2; bela sqrt(0.1 x 1) = 0.316, for nothing of her is readable
    assert numbers["rate_quality.bela"] == 0.1
    assert numbers["rate.anna"] == pytest.approx(2 * 2 / 2.3162, abs=1e-4)


def test_a_large_hospital_weighs_more_in_the_mean() -> None:
    assert balanced({"large": 1.0, "small": 0.5}, {"large": 300.0, "small": 100.0}, 0.1, 10.0) == {
        "large": 1.1429,  # 400 / (300 + 50)
        "small": 0.5714,
    }


def test_one_that_is_cut_gives_its_part_to_the_others() -> None:
    assert balanced({"a": 1.0, "b": 1.0, "c": 0.3}, dict.fromkeys("abc", 1.0), 0.5, 2.0) == {
        "a": 1.25,
        "b": 1.25,
        "c": 0.5,
    }


@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.tuples(st.floats(0.01, 100), st.floats(1, 1000)), min_size=1),
    st.floats(0.01, 1.0),
    st.floats(1.0, 100.0),
)
def test_factors_keep_their_bounds_and_their_mean_is_one(
    sites: dict[str, tuple[float, float]], least: float, most: float
) -> None:
    weights = {site: weight for site, (_, weight) in sites.items()}
    factors = balanced({site: value for site, (value, _) in sites.items()}, weights, least, most)
    assert all(least <= factor <= most for factor in factors.values())
    mean = sum(weights[site] * factor for site, factor in factors.items()) / sum(weights.values())
    assert mean == pytest.approx(1.0, abs=1e-4)


def test_a_round_before_the_first_names_no_factor() -> None:
    study = study_with(adapt="updates", from_round=3)
    assert rate_of(study, 2, "anna", {"rate.anna": 0.7}) is None
    assert rate_of(study, 3, "anna", {"rate.anna": 0.7}) == 0.7
    assert rate_of(study, 3, "newcomer", {"rate.anna": 0.7}) == 1.0
    assert rate_of(study_with(), 3, "anna", {"rate.anna": 0.7}) is None
