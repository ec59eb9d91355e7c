"""SCAFFOLD's control variate at the hub: by hand, and beside the paper's algorithm with each site's own variate."""

from typing import Any

import numpy as np
import pytest

from hub.aggregation.choosing import strategy_of
from hub.aggregation.strategy import CountedUpdate, RoundFacts
from hub.errors import AggregationError
from protocol.study import StudySpec, parse_study
from tests.hub.aggregation.shelf import Shelf
from tests.hub.conftest import specification

STEPS, RATE = 4, 0.1
SLOPES, OPTIMA = np.array([1.0, 2.0, 0.5, 3.0]), np.array([3.0, -1.0, 5.0, 0.5])


def study_of(**changes: Any) -> StudySpec:
    terms = {"local_steps": STEPS, "learning_rate": RATE, "sampling_rate": 0.5}
    return parse_study(specification(strategy={"name": "scaffold", "weighting": "equal"}, training=terms, **changes))


def test_the_first_control_variate_is_the_mean_gradient_that_the_sites_followed(shelf: Shelf) -> None:
    strategy = strategy_of(study_of())
    state = strategy.init(shelf.put([0.0]))
    assert state.control is None
    after = strategy.apply(state, shelf.updates([[-0.4], [-1.2]]), shelf.blobs, RoundFacts(1, 2))
    # Mean update -0.8 over 4 steps of 0.1: a mean gradient of 2.
    assert after.control is not None
    assert shelf.values(after.control)[0] == pytest.approx(2.0)
    assert shelf.values(after.weights)[0] == pytest.approx(-0.8)


def test_half_of_the_sites_move_it_half_of_the_way(shelf: Shelf) -> None:
    strategy = strategy_of(study_of())
    state = strategy.init(shelf.put([0.0]))
    state = strategy.apply(state, shelf.updates([[-0.4], [-1.2]]), shelf.blobs, RoundFacts(1, 4))
    assert shelf.values(state.control or "")[0] == pytest.approx(1.0)
    state = strategy.apply(state, shelf.updates([[0.4], [0.4]]), shelf.blobs, RoundFacts(2, 4))
    assert shelf.values(state.control or "")[0] == pytest.approx(0.5 * 1.0 + 0.5 * -1.0, abs=1e-6)


def test_a_sum_of_many_sites_counts_as_many(shelf: Shelf) -> None:
    strategy = strategy_of(study_of())
    (mean,) = shelf.updates([[-0.8]])
    masked = CountedUpdate("sum", mean.blob, 1.0, sites=2)
    state = strategy.init(shelf.put([0.0]))
    assert strategy.apply(state, [masked], shelf.blobs, RoundFacts(1, 4)) == strategy.apply(
        state, shelf.updates([[-0.8], [-0.8]]), shelf.blobs, RoundFacts(1, 4)
    )


def test_more_answers_than_sites_are_refused(shelf: Shelf) -> None:
    strategy = strategy_of(study_of())
    with pytest.raises(AggregationError, match="More sites"):
        strategy.apply(strategy.init(shelf.put([0.0])), shelf.updates([[1.0], [1.0]]), shelf.blobs, RoundFacts(1, 1))


def trained(site: int, start: float, correction: float) -> float:
    """Return where a site ends whose loss is slope/2 (x - optimum)^2."""
    place = start
    for _ in range(STEPS):
        place -= RATE * (SLOPES[site] * (place - OPTIMA[site]) + correction)
    return place


def rounds_of(sampled: bool) -> list[list[int]]:
    generator = np.random.default_rng(4)
    everybody = list(range(len(SLOPES)))
    return [sorted(generator.choice(4, 2, replace=False)) if sampled else everybody for _ in range(80)]


@pytest.mark.parametrize("sampled", [False, True])
def test_the_hub_s_variate_is_the_paper_s_without_a_second_payload(shelf: Shelf, sampled: bool) -> None:
    strategy, state = strategy_of(study_of()), strategy_of(study_of()).init(shelf.put([0.0]))
    own, common = np.zeros(4), 0.0
    for number, chosen in enumerate(rounds_of(sampled), start=1):
        start = float(shelf.values(state.weights)[0])
        ends = [trained(site, start, common - own[site]) for site in chosen]
        # Algorithm 1 of the paper, with the sites' own variates (option II) and all their changes sent.
        changed = [own[site] - common + (start - end) / (STEPS * RATE) for site, end in zip(chosen, ends, strict=True)]
        common += sum(new - own[site] for site, new in zip(chosen, changed, strict=True)) / 4
        own[chosen] = changed
        updates = shelf.updates([[end - start] for end in ends])
        state = strategy.apply(state, updates, shelf.blobs, RoundFacts(number, 4))
        assert shelf.values(state.control or "")[0] == pytest.approx(common, abs=2e-5)
    optimum = float((SLOPES * OPTIMA).sum() / SLOPES.sum())
    assert shelf.values(state.weights)[0] == pytest.approx(optimum, abs=1e-3)


def test_without_it_federated_averaging_ends_elsewhere(shelf: Shelf) -> None:
    place = 0.0
    for _ in range(200):
        place = float(np.mean([trained(site, place, 0.0) for site in range(4)]))
    optimum = float((SLOPES * OPTIMA).sum() / SLOPES.sum())
    assert abs(place - optimum) > 0.05
