"""The noised number of training patients: its distribution, its price, and what a study may ask of it."""

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from dp_accounting.rdp import RdpAccountant
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import SpecificationError
from protocol.noised_counts import (
    LONGEST_DRAW,
    count_events,
    figure_events,
    is_clear_of,
    is_possible_count,
    told_count,
)
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_event, training_events
from protocol.privacy_events import PrivacyEvent
from protocol.study import StudySpec, parse_study

MASKED = {"method": "masking", "maximum_sites": 5, "maximum_weight": 100}
QUALITY = {"adapt": "quality", "quality_epsilon": 1.0}


def study_with(**changes: Any) -> StudySpec:
    data: dict[str, Any] = {
        "name": "tiny",
        "cohort": {"modality": ["DX"]},
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "densenet"},
        "training": {"local_steps": 2, "sampling_rate": 0.2},
        "rounds": 4,
        "participants": {"minimum_sites": 4, "training_patients": 100},
    }
    privacy = {"epsilon": 4.0, "delta": 1e-4} | changes.pop("privacy", {})
    return parse_study({**data, "privacy": privacy, **changes})


def drawing(noise: int) -> Any:
    return lambda count, scale: [noise] * count


def distribution(exact: int, least: int, epsilon: float) -> dict[int, float]:
    """Return the chance of every told number, by the noise's own: P(k) proportional to exp(-epsilon |k|)."""
    found: defaultdict[int, float] = defaultdict(float)
    whole = (1 + math.exp(-epsilon)) / (1 - math.exp(-epsilon))
    for noise in range(-200, 201):
        found[told_count(exact, least, epsilon, drawing(noise))] += math.exp(-epsilon * abs(noise)) / whole
    return found


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("exact", [10, 11, 60])
def test_one_patient_more_or_less_changes_no_told_number_s_chance_by_more_than_epsilon(
    exact: int, epsilon: float
) -> None:
    one, other = distribution(exact, 10, epsilon), distribution(exact + 1, 10, epsilon)
    for told in sorted(one.keys() & other.keys())[:-1]:  # the last is where the sum above is cut off
        assert abs(math.log(one[told] / other[told])) <= epsilon + 1e-6


def test_the_noise_has_a_scale_of_one_over_epsilon_and_the_minimum_is_never_undercut() -> None:
    drawn: list[tuple[int, float]] = []

    def draw(count: int, scale: float) -> np.ndarray[Any, Any]:
        drawn.append((count, scale))
        return np.array([-95])

    assert told_count(100, 10, 0.25, draw) == 10
    assert drawn == [(1, 4.0)]
    assert told_count(100, 10, 0.25, drawing(7)) == 107


@given(st.integers(1, 5000), st.integers(1, 50), st.floats(0.01, 20), st.floats(-1, 1))
def test_what_can_be_drawn_can_be_told(exact: int, least: int, epsilon: float, share: float) -> None:
    noise = math.floor(share * LONGEST_DRAW / epsilon)
    told = told_count(exact, least, epsilon, drawing(noise))
    assert told >= least
    assert is_possible_count(told, exact, least, epsilon)


def test_what_cannot_be_drawn_cannot_be_told() -> None:
    """At epsilon 1 noise of 64-bit numbers is at most 64 x ln 2 = 44.4."""
    assert is_possible_count(145, 100, 10, 1.0)
    assert not is_possible_count(146, 100, 10, 1.0)
    assert not is_possible_count(54, 100, 10, 1.0)
    assert not is_possible_count(9, 20, 10, 1.0)


def test_a_number_is_clear_of_a_minimum_where_only_delta_s_chance_speaks_against_it() -> None:
    """ln(1 / 0.0001) / 0.5 = 18.4."""
    assert not is_clear_of(28, 10, 0.5, 1e-4)
    assert is_clear_of(29, 10, 0.5, 1e-4)


@given(st.integers(2, 100), st.floats(0.05, 2))
def test_who_is_below_a_minimum_seems_clear_of_it_by_delta_s_chance_alone(least: int, epsilon: float) -> None:
    """The most patients who are too few; the noise that they would need, and its chance, summed."""
    needed = next(noise for noise in range(10_000) if is_clear_of(least - 1 + noise, least, epsilon, 1e-3))
    chance = math.exp(-epsilon * needed) / (1 + math.exp(-epsilon))
    assert chance <= 1e-3


def test_a_study_without_it_has_no_event_and_its_events_are_what_they_were() -> None:
    plain = study_with()
    assert count_events(plain.privacy) == []
    assert training_events(plain, 1.0, 2) == [training_event(plain, 1.0, 2)]


def test_the_count_is_one_event_of_its_own_beside_the_quality_figures() -> None:
    study = study_with(privacy={"count_epsilon": 0.5}, site_rates=QUALITY)
    assert figure_events(study) == [
        PrivacyEvent(mechanism="discrete-laplace", noise_multiplier=3.0, count=3),
        PrivacyEvent(mechanism="discrete-laplace", noise_multiplier=2.0, count=1),
    ]
    assert epsilon_of(count_events(study.privacy), 0.0) == pytest.approx(0.5)


MECHANISMS: dict[str, dict[str, Any]] = {
    "dp-sgd": {},
    "with quality figures": {"site_rates": QUALITY},
    "shared-noise": {
        "privacy": {"mechanism": "shared-noise"},
        "training": {"local_steps": 1, "sampling_rate": 0.2},
        "secure_aggregation": MASKED,
        "transport": {"upload": []},
    },
    "site-level": {
        "privacy": {"mechanism": "site-level", "unit": "site", "update_norm": 0.3},
        "strategy": {"weighting": "equal"},
        "participants": {"minimum_sites": 10, "training_patients": 100},
    },
}


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_count_is_a_part_of_the_study_s_epsilon(name: str) -> None:
    changes = MECHANISMS[name]
    own = changes.get("privacy", {})
    plain = study_with(**{**changes, "privacy": own})
    noised = study_with(**{**changes, "privacy": own | {"count_epsilon": 0.5}})
    noise = noise_multiplier_of(noised)
    assert noise is not None
    assert noise > (noise_multiplier_of(plain) or 0.0)
    assert 3.9 < epsilon_of(training_events(noised, noise, 4), 1e-4) <= 4.0


@pytest.mark.parametrize(("rate", "noise", "steps"), [(0.2, 1.0, 50), (0.05, 0.7, 200), (1.0, 2.0, 10)])
def test_the_accountant_s_epsilon_holds_for_adding_or_removing_a_patient_as_well(
    rate: float, noise: float, steps: int
) -> None:
    """Why the same epsilon is stated once no exact number is public any more."""
    found = []
    for relation in (NeighboringRelation.REPLACE_SPECIAL, NeighboringRelation.ADD_OR_REMOVE_ONE):
        steps_taken = from_gaussian_mechanism(
            noise, value_discretization_interval=1e-3, sampling_prob=rate, neighboring_relation=relation
        ).self_compose(steps)
        by_divergence = RdpAccountant([2, 4, 8, 16], relation)
        by_divergence.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
        found.append((steps_taken.get_epsilon_for_delta(1e-5), by_divergence.get_epsilon(1e-5)))
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_without_private_training_the_count_alone_is_charged() -> None:
    study = study_with(privacy={"epsilon": None, "count_epsilon": 3.0})
    assert noise_multiplier_of(study) is None
    assert epsilon_of(figure_events(study), 0.0) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"privacy": {"count_epsilon": 2.1}}, "Lower it to at most 2."),
        ({"privacy": {"count_epsilon": 1.5}, "site_rates": QUALITY}, "Lower it to at most 1."),
        (
            {"privacy": {"count_epsilon": 0.5}, "site_rates": QUALITY | {"quality_epsilon": 2.0}},
            "Lower site_rates.quality_epsilon.",
        ),
    ],
    ids=["more than half", "more than half with the quality figures", "quality figures that leave nothing"],
)
def test_figures_that_leave_training_less_than_half_are_refused(changes: dict[str, Any], remedy: str) -> None:
    with pytest.raises(SpecificationError) as refused:
        study_with(**changes)
    assert [problem for problem in refused.value.problems if problem.startswith("privacy.count_epsilon")] != []
    assert all(problem.endswith(remedy) for problem in refused.value.problems)


@pytest.mark.parametrize("epsilon", [0.0, 0.001, -1.0, float("inf"), 2000.0])
def test_an_epsilon_that_hides_nothing_or_leaves_nothing_is_refused(epsilon: float) -> None:
    with pytest.raises(SpecificationError) as refused:
        study_with(privacy={"count_epsilon": epsilon})
    assert "privacy.count_epsilon" in refused.value.problems[0]
