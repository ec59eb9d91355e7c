"""Hospitals' own learning rates: what a study may ask for, what a task may name, what quality figures cost."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import SpecificationError
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_event, training_events
from protocol.site_rates import QualityFigures, SiteRates, quality_events, released
from protocol.study import StudySpec, parse_study


def specification(**changes: Any) -> dict[str, Any]:
    return {
        "name": "s",
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "convnet"},
        "rounds": 4,
        "participants": {"training_patients": 100},
        "privacy": {"epsilon": 4.0, "delta": 1e-4},
        **changes,
    }


def study_with(**changes: Any) -> StudySpec:
    return parse_study(specification(**changes))


@dataclass(frozen=True)
class Refusal:
    changes: dict[str, Any]
    field: str
    remedy: str


MASKED = {"method": "masking", "maximum_sites": 8, "maximum_weight": 1000}
UPDATES = {"adapt": "updates"}
REFUSALS = {
    "quality figures without noise of their own": Refusal(
        {"site_rates": {"adapt": "quality"}}, "site_rates.quality_epsilon", "State a part of privacy.epsilon"
    ),
    "quality figures without noise where training has none either": Refusal(
        {"site_rates": {"adapt": "quality"}, "privacy": {"epsilon": None}}, "site_rates.quality_epsilon", "without that"
    ),
    "updates of which each round sends other places": Refusal(
        {"site_rates": UPDATES, "transport": {"upload": ["random-k:0.03"]}}, "site_rates.adapt", "another step"
    ),
    "both where each round sends other places": Refusal(
        {"site_rates": {"adapt": "both", "quality_epsilon": 0.4}, "transport": {"upload": ["random-k:0.03", "half"]}},
        "site_rates.adapt",
        "adapt: quality",
    ),
    "quality figures that take most of the epsilon": Refusal(
        {"site_rates": {"adapt": "quality", "quality_epsilon": 3.0}}, "site_rates.quality_epsilon", "at most 2"
    ),
    "noise for figures that nobody reads": Refusal(
        {"site_rates": {"adapt": "updates", "quality_epsilon": 1.0}}, "site_rates.quality_epsilon", "Leave it out"
    ),
    "single updates under masks": Refusal(
        {"site_rates": UPDATES, "secure_aggregation": MASKED, "transport": {"upload": []}},
        "site_rates.adapt",
        "secure_aggregation.method to none",
    ),
    "a hub that takes the steps": Refusal(
        {
            "site_rates": {"adapt": "quality", "quality_epsilon": 0.4},
            "privacy": {"epsilon": 8.0, "delta": 1e-4, "mechanism": "shared-noise"},
            "training": {"local_steps": 1},
            "secure_aggregation": MASKED,
            "transport": {"upload": []},
        },
        "site_rates.adapt",
        "privacy.mechanism: dp-sgd",
    ),
    "control variates": Refusal(
        {"site_rates": UPDATES, "strategy": {"name": "scaffold"}}, "site_rates.adapt", "another strategy.name"
    ),
    "weights from the noise of one rate": Refusal(
        {"site_rates": UPDATES, "strategy": {"weighting": "noise"}}, "site_rates.adapt", "another weighting"
    ),
    "factors that no round uses": Refusal(
        {"site_rates": {**UPDATES, "from_round": 5}}, "site_rates.from_round", "Lower it"
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_is_refused_with_its_remedy(name: str) -> None:
    refusal = REFUSALS[name]
    with pytest.raises(SpecificationError) as refused:
        study_with(**refusal.changes)
    assert any(p.startswith(refusal.field) and refusal.remedy in p for p in refused.value.problems), refused.value


def test_quality_goes_with_random_k_and_updates_with_top_k() -> None:
    quality = {"adapt": "quality", "quality_epsilon": 0.4}
    assert study_with(site_rates=quality, transport={"upload": ["random-k:0.03"]}).site_rates.reads_quality
    assert study_with(site_rates=UPDATES, transport={"upload": ["top-k:0.03"]}).site_rates.reads_updates


def test_quality_figures_are_noised_also_where_training_is_not() -> None:
    study = study_with(site_rates={"adapt": "quality", "quality_epsilon": 0.5}, privacy={"epsilon": None})
    assert noise_multiplier_of(study) is None
    assert epsilon_of(quality_events(study.site_rates), 0.0) == pytest.approx(0.5)


def test_quality_alone_goes_with_masks() -> None:
    study = study_with(
        site_rates={"adapt": "quality", "quality_epsilon": 0.4},
        secure_aggregation=MASKED,
        transport={"upload": []},
        participants={"minimum_sites": 4, "training_patients": 100},
    )
    assert study.site_rates.reads_quality
    assert not study.site_rates.reads_updates


def test_the_figures_are_part_of_the_study_s_epsilon() -> None:
    plain, rated = study_with(), study_with(site_rates={"adapt": "quality", "quality_epsilon": 0.5})
    noise = noise_multiplier_of(rated)
    assert noise is not None
    assert noise > (noise_multiplier_of(plain) or 0.0)
    together = epsilon_of(training_events(rated, noise, 4), 1e-4)
    assert epsilon_of([training_event(rated, noise, 4)], 1e-4) < together <= 4.0
    assert together > 3.99
    assert epsilon_of(quality_events(rated.site_rates), 0.0) == pytest.approx(0.5)  # pure, without a delta
    assert quality_events(plain.site_rates) == []


@pytest.mark.parametrize(("round_number", "factor", "is_admitted"), [
    (1, None, True), (1, 1.0, False), (2, None, False), (2, 0.5, True), (2, 2.0, True), (2, 0.4999, False),
    (2, 2.001, False), (2, float("nan"), False), (2, float("inf"), False), (2, -1.0, False),
])  # fmt: skip
def test_a_task_s_factor_lies_within_the_study_s_bounds(
    round_number: int, factor: float | None, is_admitted: bool
) -> None:
    assert SiteRates(adapt="updates").admits(round_number, factor) == is_admitted


def test_a_study_that_does_not_adapt_takes_no_factor() -> None:
    assert SiteRates().admits(3, None)
    assert not SiteRates().admits(3, 1.0)


def no_noise(count: int, scale: float) -> list[int]:
    return [0] * count


def test_figures_leave_with_noise_of_three_over_epsilon_and_within_the_public_number() -> None:
    scales: list[float] = []

    def draw(count: int, scale: float) -> np.ndarray[Any, Any]:
        scales.append(scale)
        return np.array([5, -9, 0][:count])

    figures = released((98, 4, 7), 100, 0.5, draw)
    assert figures == QualityFigures(positive=100, unreadable=0, repeated=7, noise_epsilon=0.5)
    assert scales == [6.0]


def test_figures_must_be_what_the_study_reads() -> None:
    terms = SiteRates(adapt="quality", quality_epsilon=0.5)
    figures = QualityFigures(positive=10, unreadable=0, repeated=0, noise_epsilon=0.5)
    assert figures.fits(terms, 10)
    assert not figures.fits(terms, 9)
    assert not figures.fits(SiteRates(adapt="updates"), 10)
    assert not figures.fits(SiteRates(adapt="quality"), 10)


@given(st.tuples(*[st.integers(0, 50)] * 3), st.integers(0, 50))
def test_figures_are_cut_to_the_public_number_and_else_as_drawn(exact: tuple[int, int, int], patients: int) -> None:
    figures = released(exact, patients, 1.0, no_noise)
    assert (figures.positive, figures.unreadable, figures.repeated) == tuple(min(patients, count) for count in exact)
