import math
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import AccountingError, SpecificationError
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_event
from protocol.privacy_events import PrivacyEvent
from protocol.secure_aggregation.roster import threshold_of
from protocol.shared_noise import SharedNoise, colluding_sites, fewest_survivors, shared_noise_of, sharing_sites
from protocol.study import StudySpec, parse_study


def specification(**changes: dict[str, Any]) -> dict[str, Any]:
    parts: dict[str, dict[str, Any]] = {
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "convnet"},
        "training": {"local_steps": 1, "sampling_rate": 0.1},
        "participants": {"minimum_sites": 10, "training_patients": 4708},
        "privacy": {"epsilon": 3.0, "mechanism": "shared-noise"},
        "transport": {"upload": []},
        "secure_aggregation": {"method": "masking", "maximum_sites": 10, "maximum_weight": 2000},
    }
    parts["strategy"] = {}
    merged = {part: {**terms, **changes.get(part, {})} for part, terms in parts.items()}
    return {"name": "shared", "rounds": 100, "evaluation": {"every": 50}, **merged}


def study_with(**changes: dict[str, Any]) -> StudySpec:
    return parse_study(specification(**changes))


def test_the_terms_of_ten_hospitals_are_these() -> None:
    terms = shared_noise_of(study_with())
    assert terms.value_bound == (2**31 - 1) // 10
    assert fewest_survivors(study_with()) == 7
    assert terms.sharing == 4  # of seven survivors three may collude: 0.3 x 10
    # 470.8 patients expected, and 12 deviations more: 731 of them fill half of a value's bound
    assert terms.clip_steps == 2**17 <= terms.sum_bound / 731.2 < 2**18


def test_the_shares_of_any_honest_sites_among_the_fewest_survivors_make_the_noise() -> None:
    terms = shared_noise_of(study_with())
    share = terms.share_variance(1.5)
    for survivors in combinations(range(10), 7):
        colluding = set(survivors[:3])  # all of the three that may: the hub says who survives
        honest = share * len(set(survivors) - colluding)
        assert math.sqrt(honest) * terms.grid == pytest.approx(1.5 * terms.clip_norm)
    assert 10 * share > 7 * share >= (1.5 * terms.clip_steps) ** 2


@pytest.mark.parametrize(("fraction", "counted"), [(1.0, 7), (0.95, 7), (0.9, 6), (0.7, 4), (0.5, 2), (0.31, 1)])
def test_the_honest_fraction_says_how_many_of_the_fewest_survivors_are_counted_on(
    fraction: float, counted: int
) -> None:
    assert sharing_sites(study_with(privacy={"honest_fraction": fraction})) == counted
    assert colluding_sites(10, fraction) == 7 - counted


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy": {"honest_fraction": 0.3}},
        {"privacy": {"honest_fraction": 0.5}, "secure_aggregation": {"maximum_sites": 14}},
    ],
)
def test_a_study_whose_survivors_may_all_collude_is_refused(changes: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(SpecificationError, match=r"Raise honest_fraction, or bring secure_aggregation.maximum_sites"):
        study_with(**changes)


@pytest.mark.parametrize("sites", [10, 20, 30])
@pytest.mark.parametrize("fraction", [0.5, 0.7, 0.9])
def test_with_every_colluder_surviving_the_noise_of_the_others_gives_no_more_than_was_promised(
    sites: int, fraction: float
) -> None:
    study = study_with(
        participants={"minimum_sites": sites},
        secure_aggregation={"maximum_sites": sites},
        privacy={"honest_fraction": fraction},
    )
    noise, terms = noise_multiplier_of(study) or 0.0, shared_noise_of(study)
    colluding = int(Fraction(str(1 - fraction)).limit_denominator(100) * sites)
    left = (threshold_of(sites) - colluding) * terms.share_variance(noise)
    seen = math.sqrt(left) / terms.clip_steps
    event = PrivacyEvent(mechanism="poisson-skellam", sampling_rate=0.1, noise_multiplier=seen, count=100)
    assert epsilon_of([event], study.privacy.delta) <= 3.0 + 1e-6


@given(st.integers(1, 400), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_rounding_a_sum_with_and_without_a_patient_moves_it_by_at_most_the_clip_steps(values: int, seed: int) -> None:
    terms = SharedNoise(clip_norm=2.5, clip_steps=1024, value_bound=20_000, sharing=1)
    generator = np.random.default_rng(seed)
    others = generator.normal(scale=30.0, size=values)  # some beyond the bound, where the sum is cut
    patient = generator.normal(size=values)
    patient *= terms.clip_norm_for(values) / np.linalg.norm(patient)
    with_patient, without = (
        np.clip(np.rint(total / terms.grid), -terms.sum_bound, terms.sum_bound) for total in (others + patient, others)
    )
    shift = with_patient - without
    assert np.linalg.norm(shift) <= terms.clip_steps
    assert np.abs(shift).sum() <= np.square(shift).sum()  # whole numbers: what the accounting uses for the L1 norm


def test_a_grid_too_coarse_for_the_model_is_refused() -> None:
    terms = SharedNoise(clip_norm=1.0, clip_steps=1024, value_bound=20_000, sharing=1)
    assert terms.clip_norm_for(10_000) == pytest.approx(1 - 100 / 1024)
    with pytest.raises(AccountingError, match="too coarse"):
        terms.clip_norm_for(500**2 + 12**2 * 100)


@given(st.integers(1, 100_000), st.integers(4, 40), st.floats(0.01, 1.0), st.floats(0.5, 1.0))
@settings(deadline=None, max_examples=50)
def test_the_sum_of_all_sites_never_leaves_the_ring(patients: int, sites: int, rate: float, honest: float) -> None:
    changes: dict[str, dict[str, Any]] = {
        "participants": {"minimum_sites": sites, "training_patients": patients},
        "training": {"sampling_rate": rate},
        "secure_aggregation": {"maximum_sites": sites},
        "privacy": {"honest_fraction": honest, "allow_large_delta": "test"},
    }
    study = StudySpec.model_validate(specification(**changes))
    try:
        terms = shared_noise_of(study)
    except AccountingError:
        return
    assert terms.value_bound * sites <= 2**31 - 1
    expected = rate * patients
    assert (expected + 12 * math.sqrt(expected)) * terms.clip_steps <= terms.sum_bound
    try:
        terms.check_noise(512 / 12)  # what every grid has room for, if it is fine enough for so many sharing it
    except AccountingError as error:
        assert "too few grid steps" in str(error)  # noqa: PT017 - the other reason would be a fault


def test_a_ring_too_narrow_for_so_many_sites_is_refused_when_the_study_is_written() -> None:
    with pytest.raises(SpecificationError, match=r"grid of .* steps"):
        study_with(
            participants={"minimum_sites": 4000, "training_patients": 9000},
            secure_aggregation={"maximum_sites": 4000},
        )


def test_the_hub_s_calibration_keeps_the_study_s_promise() -> None:
    study = study_with()
    noise = noise_multiplier_of(study)
    assert noise is not None
    event = training_event(study, noise, study.maximum_training_tasks)
    assert (event.mechanism, event.count) == ("poisson-skellam", 100)
    assert 2.9 < epsilon_of([event], study.privacy.delta) <= 3.0


@pytest.mark.parametrize(
    ("epsilon", "rate", "sites", "reason"), [(0.15, 0.9, 10, "ring"), (500.0, 0.01, 400, "too few grid steps")]
)
def test_noise_that_cannot_be_drawn_or_summed_is_refused(epsilon: float, rate: float, sites: int, reason: str) -> None:
    study = study_with(
        privacy={"epsilon": epsilon},
        training={"sampling_rate": rate},
        participants={"minimum_sites": sites, "training_patients": 300},
        secure_aggregation={"maximum_sites": sites},
    )
    with pytest.raises(AccountingError, match=reason):
        noise_multiplier_of(study)
