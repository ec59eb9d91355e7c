import pytest

from protocol.schedule import learning_rate_of
from protocol.study import parse_study


def rates(schedule: str) -> list[float]:
    study = parse_study(
        {
            "name": "s",
            "label": {"classes": ["no", "yes"]},
            "network": {"name": "convnet"},
            "training": {"learning_rate": 0.4, "schedule": schedule},
            "rounds": 4,
            "privacy": {"epsilon": None},
        }
    )
    return [learning_rate_of(study, number) for number in range(1, 6)]


def test_a_constant_rate_stays() -> None:
    assert rates("constant") == [0.4] * 5


def test_a_cosine_rate_begins_whole_falls_and_stays_at_the_last_rate_in_spare_rounds() -> None:
    assert rates("cosine") == pytest.approx([0.4, 0.3414214, 0.2, 0.0585786, 0.0585786])
