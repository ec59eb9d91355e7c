from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.schedule import learning_rate_of
from protocol.study import StudySpec, parse_study


def study_with(rounds: int = 4, **training: Any) -> StudySpec:
    return parse_study(
        {
            "name": "s",
            "label": {"classes": ["no", "yes"]},
            "network": {"name": "convnet"},
            "training": {"learning_rate": 0.4, **training},
            "rounds": rounds,
            "privacy": {"epsilon": None},
        }
    )


def rates(**training: Any) -> list[float]:
    return [learning_rate_of(study_with(**training), number) for number in range(1, 6)]


def test_a_constant_rate_stays() -> None:
    assert rates(schedule="constant") == [0.4] * 5


def test_a_cosine_rate_begins_whole_falls_and_stays_at_the_last_rate_in_spare_rounds() -> None:
    assert rates(schedule="cosine") == pytest.approx([0.4, 0.3414214, 0.2, 0.0585786, 0.0585786])


def test_a_linear_rate_falls_by_the_same_part_every_round() -> None:
    assert rates(schedule="linear") == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.1])


def test_a_step_rate_falls_after_every_so_many_rounds() -> None:
    assert rates(schedule="step", step_rounds=2, step_factor=0.5) == pytest.approx([0.4, 0.4, 0.2, 0.2, 0.2])


def test_a_warm_up_rises_evenly_and_the_schedule_begins_after_it() -> None:
    assert rates(schedule="constant", warm_up_rounds=3) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates(schedule="linear", warm_up_rounds=2) == pytest.approx([0.4 / 3, 0.8 / 3, 0.4, 0.2, 0.2])


@given(
    schedule=st.sampled_from(["constant", "cosine", "linear", "step"]),
    rounds=st.integers(1, 30),
    warm_up=st.integers(0, 29),
    number=st.integers(0, 40),
)
def test_no_rate_is_zero_or_above_the_study_s(schedule: str, rounds: int, warm_up: int, number: int) -> None:
    steps = {"step_rounds": 3} if schedule == "step" else {}
    study = study_with(rounds, schedule=schedule, warm_up_rounds=min(warm_up, rounds - 1), **steps)
    assert 0 < learning_rate_of(study, number) <= 0.4


@pytest.mark.parametrize(
    ("terms", "steps"),
    [
        ({"local_steps": 7}, 7),
        ({"local_epochs": 1, "sampling_rate": 0.1}, 10),
        ({"local_epochs": 3, "sampling_rate": 0.3}, 9),
        ({"local_epochs": 2, "sampling_rate": 1.0}, 2),
    ],
)
def test_steps_are_stated_or_counted_in_epochs_of_the_draws_that_reach_every_patient_once_on_average(
    terms: dict[str, Any], steps: int
) -> None:
    study = study_with(**terms)
    assert (study.local_steps, study.maximum_steps) == (steps, 4 * steps)
    assert parse_study(study.model_dump(mode="json", by_alias=True)) == study
