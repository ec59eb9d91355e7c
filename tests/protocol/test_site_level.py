import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import AccountingError
from protocol.privacy_accounting import calibrate_noise, noise_multiplier_of, training_event
from protocol.site_level import is_possible_norm, next_update_norm, site_noise, update_deviation
from protocol.study import StudySpec, parse_study
from tests.protocol.test_mechanism_rules import site_level


def study_with(**privacy: object) -> StudySpec:
    return parse_study(site_level(privacy=privacy))


def test_the_length_moves_by_the_papers_formula() -> None:
    # C exp(-0.2 x (b - 0.5)) with b = 3/4, 1/2, 0
    assert next_update_norm(2.0, [1.0, 1.0, 1.0, 0.0], 0.5, 0.2) == pytest.approx(2.0 * math.exp(-0.05))
    assert next_update_norm(2.0, [1.0, 0.0], 0.5, 0.2) == 2.0
    assert next_update_norm(2.0, [0.0, 0.0], 0.5, 0.2) == pytest.approx(2.0 * math.exp(0.1))


def test_noise_beyond_what_bits_can_be_counts_as_all_or_none() -> None:
    assert next_update_norm(1.0, [37.5], 0.8, 0.2) == next_update_norm(1.0, [1.0], 0.8, 0.2)
    assert next_update_norm(1.0, [-9.0, -1.0], 0.8, 0.2) == next_update_norm(1.0, [0.0], 0.8, 0.2)


def test_without_bits_the_length_stays() -> None:
    assert next_update_norm(0.3, [], 0.5, 0.2) == 0.3


@given(st.floats(0.3, 50.0))
def test_both_noises_together_are_the_calibrated_mechanism(multiplier: float) -> None:
    noise = site_noise(study_with().privacy, multiplier)
    assert noise.bit is not None
    assert noise.update**-2 + noise.bit**-2 == pytest.approx(multiplier**-2)
    assert multiplier < noise.update < 1.06 * multiplier  # what the bit costs the update


def test_a_fixed_length_needs_no_bit_and_all_noise_is_the_updates() -> None:
    noise = site_noise(study_with(update_norm_rate=0.0).privacy, 3.0)
    assert (noise.update, noise.bit) == (3.0, None)


def test_the_noise_is_for_an_update_that_moves_across_the_whole_ball() -> None:
    privacy = study_with(update_norm_rate=0.0).privacy
    assert update_deviation(privacy, noise_multiplier=3.0, update_norm=0.5) == 3.0


def test_one_noised_release_a_round_is_accounted_whatever_the_local_steps_and_sampling_are() -> None:
    study = study_with(epsilon=8.0)
    noise = noise_multiplier_of(study)
    assert noise == calibrate_noise(1.0, study.rounds, 8.0, study.privacy.delta)
    event = training_event(study, noise, study.maximum_training_tasks)
    assert (event.mechanism, event.sampling_rate, event.count) == ("poisson-gaussian", 1.0, study.rounds)


def test_a_length_that_the_hub_cannot_have_come_to_is_told() -> None:
    study = study_with(update_norm=2.0, update_quantile=0.75, update_norm_rate=0.4)
    assert is_possible_norm(study, 1, 2.0)
    assert not is_possible_norm(study, 1, 2.1)
    assert is_possible_norm(study, 3, 2.0 * math.exp(2 * 0.4 * 0.75))
    assert not is_possible_norm(study, 3, 2.0 * math.exp(2 * 0.4 * 0.75) * 1.001)
    assert is_possible_norm(study, 3, 2.0 * math.exp(-2 * 0.4 * 0.25))
    assert not is_possible_norm(study, 3, 2.0 * math.exp(-2 * 0.4 * 0.25) * 0.999)


@pytest.mark.parametrize("norm", [None, 0.0, -1.0, math.inf, math.nan])
def test_a_site_level_task_states_a_length(norm: float | None) -> None:
    assert not is_possible_norm(study_with(), 5, norm)


@given(st.lists(st.lists(st.floats(-100, 100), min_size=1, max_size=5), max_size=20))
def test_every_length_that_the_rule_gives_is_possible(rounds: list[list[float]]) -> None:
    study = study_with()
    norm = study.privacy.update_norm
    for number, bits in enumerate(rounds, start=1):
        norm = next_update_norm(norm, bits, study.privacy.update_quantile, study.privacy.update_norm_rate)
        assert is_possible_norm(study, number + 1, norm)


def test_noise_that_leaves_nothing_of_an_update_is_refused() -> None:
    with pytest.raises(AccountingError, match="every value of a site's update"):
        noise_multiplier_of(study_with(epsilon=0.5))
