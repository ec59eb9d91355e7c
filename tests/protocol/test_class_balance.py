"""Weights of two classes from noised figures: numbers that one can check by hand, and where they may be asked for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.class_balance import balanced_weights
from protocol.errors import SpecificationError
from protocol.site_rates import QualityFigures
from protocol.study import parse_study
from tests.protocol.test_study import minimal

READ = {"adapt": "quality", "quality_epsilon": 0.5, "least": 1, "most": 1}
BALANCED = {"classes": ["no", "yes"], "balance": "quality"}


def figures(positive: int) -> QualityFigures:
    return QualityFigures(positive=positive, unreadable=0, repeated=0, noise_epsilon=1.0)


@pytest.mark.parametrize(
    ("positive", "training", "weights"),
    [(50, 100, (1.0, 1.0)), (20, 80, (2 / 3, 2.0)), (60, 80, (2.0, 2 / 3)), (0, 40, (1 / 1.9, 10.0))],
)
def test_both_classes_weigh_the_same(positive: int, training: int, weights: tuple[float, float]) -> None:
    assert balanced_weights(figures(positive), training) == pytest.approx(weights)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_whatever_the_noise_says_no_weight_is_above_ten_or_below_a_half(positive: int, training: int) -> None:
    negative_weight, positive_weight = balanced_weights(figures(positive), training)
    assert all(0.5 < weight <= 10.0 + 1e-9 for weight in (negative_weight, positive_weight))
    share = 0.5 / positive_weight  # the mean weight is 1 with the shares that were used
    assert share * positive_weight + (1 - share) * negative_weight == pytest.approx(1.0)


def test_a_study_that_reads_the_figures_may_weigh_by_them_and_leave_rates_alone() -> None:
    study = parse_study(minimal(label=BALANCED, site_rates=READ))
    assert study.label.balance == "quality"
    assert study.site_rates.admits(5, 1.0)
    assert not study.site_rates.admits(5, 1.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": BALANCED}, "does not read"),
        ({"label": BALANCED, "site_rates": {"adapt": "updates"}}, "does not read"),
        ({"label": {**BALANCED, "weights": [1.0, 2.0]}, "site_rates": READ}, "not both"),
        ({"label": {**BALANCED, "classes": ["a", "b", "c"]}, "site_rates": READ}, "one class of two"),
        ({"label": {**BALANCED, "several": True}, "site_rates": READ}, "one class of two"),
        ({"kind": "regression", "label": {"balance": "quality"}}, "does not learn"),
    ],
)
def test_weights_that_no_figure_gives_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        parse_study(minimal(**changes))
    assert any("label.balance" in sentence and words in sentence for sentence in caught.value.problems)
