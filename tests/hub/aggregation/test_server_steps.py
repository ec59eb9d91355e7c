"""The hub's steps against numbers that one can compute by hand, and against the papers' formulas over whole arrays."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hub.aggregation.choosing import strategy_of
from hub.aggregation.fedavgm import MOMENTUM
from hub.aggregation.fedopt import SECOND_MOMENT
from hub.aggregation.strategy import RoundFacts, ServerState
from hub.aggregation.weighting import noise_variance
from protocol.study import StudySpec, parse_study
from tests.hub.aggregation.shelf import Shelf
from tests.hub.conftest import specification

Values = NDArray[np.float64]


def study_of(**strategy: Any) -> StudySpec:
    return parse_study(specification(strategy=strategy))


def test_momentum_adds_up_what_pulls_one_way(shelf: Shelf) -> None:
    strategy = strategy_of(study_of(name="fedavgm", momentum=0.5, learning_rate=2.0))
    states = shelf.run(strategy, [[1.0], [1.0], [-1.0]], start=[0.0])
    # m: 1; 0.5 + 1 = 1.5; 0.75 - 1 = -0.25. weights: 2; 2 + 3 = 5; 5 - 0.5 = 4.5
    assert [shelf.values(state.weights)[0] for state in states] == [0.0, 2.0, 5.0, 4.5]
    assert [shelf.values(state.blobs[MOMENTUM])[0] for state in states[1:]] == [1.0, 1.5, -0.25]
    assert states[0].blobs == {}


def test_without_momentum_fedavgm_is_fedavg(shelf: Shelf) -> None:
    rounds = [[0.3, -0.7], [0.1, 0.2]]
    plain = shelf.run(strategy_of(study_of()), rounds, start=[1.0, 2.0])
    other = shelf.run(strategy_of(study_of(name="fedavgm", momentum=0.0)), rounds, start=[1.0, 2.0])
    assert [state.weights for state in plain] == [state.weights for state in other]


def test_fedadam_s_first_two_steps(shelf: Shelf) -> None:
    strategy = strategy_of(study_of(name="fedadam", learning_rate=0.5, momentum=0.5, second_moment=0.75, tau=1.0))
    first, second = shelf.run(strategy, [[2.0], [4.0]], start=[10.0])[1:]
    # m = 1, v = 0.75 x 1 + 0.25 x 4 = 1.75; then m = 2.5, v = 0.75 x 1.75 + 0.25 x 16 = 5.3125
    assert shelf.values(first.blobs[SECOND_MOMENT]) == [1.75]
    one = 10 + 0.5 * 1 / (math.sqrt(1.75) + 1)
    assert shelf.values(first.weights)[0] == pytest.approx(one, rel=1e-6)
    assert shelf.values(second.blobs[MOMENTUM]) == [2.5]
    assert shelf.values(second.blobs[SECOND_MOMENT]) == [5.3125]
    assert shelf.values(second.weights)[0] == pytest.approx(one + 0.5 * 2.5 / (math.sqrt(5.3125) + 1), rel=1e-6)


def test_fedyogi_moves_its_second_moment_by_at_most_the_square(shelf: Shelf) -> None:
    strategy = strategy_of(study_of(name="fedyogi", learning_rate=0.5, momentum=0.0, second_moment=0.75, tau=2.0))
    first, second = shelf.run(strategy, [[4.0], [1.0]], start=[0.0])[1:]
    # v = 4 + 0.25 x 16 = 8, then 8 - 0.25 x 1 = 7.75: up by a part of d^2, down by a part of d^2
    assert shelf.values(first.blobs[SECOND_MOMENT]) == [8.0]
    assert shelf.values(second.blobs[SECOND_MOMENT]) == [7.75]


def test_fedadagrad_only_ever_slows_down(shelf: Shelf) -> None:
    strategy = strategy_of(study_of(name="fedadagrad", learning_rate=0.5, momentum=0.0, tau=3.0))
    states = shelf.run(strategy, [[4.0], [0.0]], start=[1.0])
    assert shelf.values(states[1].blobs[SECOND_MOMENT]) == [25.0]  # 9 + 16
    assert shelf.values(states[1].weights) == [1.0 + 0.5 * 4 / (5 + 3)]
    assert states[2].weights == states[1].weights


def reference(name: str, rounds: list[Values], rate: float, beta1: float, beta2: float, tau: float) -> Values:
    """Reddi et al. 2021, Algorithm 2, over whole arrays in float64."""
    weights = np.zeros_like(rounds[0])
    momentum, moment = np.zeros_like(weights), np.full_like(weights, tau**2)
    for update in rounds:
        momentum = beta1 * momentum + (1 - beta1) * update
        moment = {
            "fedadagrad": moment + update**2,
            "fedyogi": moment - (1 - beta2) * update**2 * np.sign(moment - update**2),
            "fedadam": beta2 * moment + (1 - beta2) * update**2,
        }[name]
        weights = weights + rate * momentum / (np.sqrt(moment) + tau)
    return np.asarray(weights)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi", "fedadagrad"])
def test_adaptive_steps_are_algorithm_2_of_the_paper(shelf: Shelf, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.aggregation.chunks.WINDOW_BYTES", 1)  # windows of 1024 values
    rounds = list(np.random.default_rng(1).normal(0, 0.02, (5, 3000)).astype(np.float32))
    strategy = strategy_of(study_of(name=name, learning_rate=0.05, momentum=0.9, second_moment=0.99, tau=1e-3))
    states = shelf.run(strategy, [row.tolist() for row in rounds], start=[0.0] * 3000)
    expected = reference(name, [row.astype(np.float64) for row in rounds], 0.05, 0.9, 0.99, 1e-3)
    np.testing.assert_allclose(shelf.values(states[-1].weights), expected, rtol=2e-5, atol=1e-8)


STEPS: list[dict[str, Any]] = [
    {"name": "fedavgm"},
    {"name": "fedadam", "learning_rate": 0.1},
    {"name": "fedyogi", "learning_rate": 0.1},
    {"name": "fedadagrad", "learning_rate": 0.1},
    {"name": "fedexp"},
    {"name": "scaffold"},
    {"name": "fedadam", "learning_rate": 0.1, "averaging": 0.9, "join": "median", "weighting": "equal"},
]


@pytest.mark.parametrize("terms", STEPS, ids=lambda terms: "-".join(map(str, terms.values())))
def test_a_close_that_is_repeated_from_the_stored_state_gives_the_same_blobs(
    shelf: Shelf, terms: dict[str, Any]
) -> None:
    study = parse_study(specification(strategy=terms, participants={"minimum_sites": 3, "quorum": 1}))
    strategy = strategy_of(study)
    updates = shelf.updates(np.random.default_rng(3).normal(0, 1, (3, 50)).astype(np.float32), [3.0, 1.0, 2.0])
    state = strategy.init(shelf.put(np.ones(50, np.float32)))
    for _ in range(2):
        state = strategy.apply(state, updates, shelf.blobs)
    again = ServerState.from_document(state.document())
    assert strategy.apply(again, updates, shelf.blobs) == strategy.apply(state, updates, shelf.blobs)
    assert all(shelf.blobs.contains(digest) for digest in state.blobs.values())


def test_a_close_that_dies_while_it_writes_leaves_nothing_and_can_be_repeated(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.aggregation.chunks.WINDOW_BYTES", 1)
    strategy = strategy_of(study_of(name="fedadam", learning_rate=0.1))
    updates = shelf.updates(np.ones((2, 5000), np.float32))
    state = strategy.init(shelf.put(np.zeros(5000, np.float32)))
    before = sorted(path for path in shelf.blobs.root.rglob("*") if path.is_file())

    def die(values: Values) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killing:
        killing.setattr("hub.aggregation.composed.finite", die)
        with pytest.raises(KeyboardInterrupt):
            strategy.apply(state, updates, shelf.blobs)
    assert sorted(path for path in shelf.blobs.root.rglob("*") if path.is_file()) == before
    after = strategy.apply(state, updates, shelf.blobs)
    assert set(after.blobs) == {MOMENTUM, SECOND_MOMENT}


def fedexp_step(rows: list[list[float]], shares: list[float]) -> float:
    matrix, weights = np.array(rows), np.array(shares) / sum(shares)
    mean_square = float(weights @ (matrix**2).sum(1))
    return max(1.0, mean_square / (2 * (float(((weights @ matrix) ** 2).sum()) + 1e-3 * mean_square)))


def test_fedexp_goes_further_where_sites_disagree(shelf: Shelf) -> None:
    strategy = strategy_of(study_of(name="fedexp"))
    state = strategy.init(shelf.put([0.0, 0.0]))
    rows = [[3.0, 1.0], [-3.0, 1.0]]
    after = strategy.apply(state, shelf.updates(rows), shelf.blobs)
    # Both have the squared length 10, their mean (0, 1) has 1: 10 / (2 x (1 + 0.01)) = 4.95
    assert after.numbers["server_step"] == pytest.approx(10 / 2.02)
    np.testing.assert_allclose(shelf.values(after.weights), [0.0, 10 / 2.02], rtol=1e-6)


def test_fedexp_takes_equal_updates_as_they_are(shelf: Shelf) -> None:
    strategy = strategy_of(study_of(name="fedexp"))
    after = strategy.apply(strategy.init(shelf.put([1.0])), shelf.updates([[0.5], [0.5]]), shelf.blobs)
    assert after.numbers["server_step"] == 1.0
    assert shelf.values(after.weights) == [1.5]


def test_fedexp_weighs_by_patients(shelf: Shelf) -> None:
    strategy = strategy_of(study_of(name="fedexp"))
    rows, patients = [[3.0, 1.0], [-3.0, 1.0], [0.0, -2.0]], [10.0, 30.0, 20.0]
    after = strategy.apply(strategy.init(shelf.put([0.0, 0.0])), shelf.updates(rows, patients), shelf.blobs)
    assert after.numbers["server_step"] == pytest.approx(fedexp_step(rows, patients))


def test_fedexp_survives_updates_that_cancel(shelf: Shelf) -> None:
    strategy = strategy_of(study_of(name="fedexp"))
    for rows in ([[2.0], [-2.0]], [[0.0], [0.0]]):
        after = strategy.apply(strategy.init(shelf.put([1.0])), shelf.updates(rows), shelf.blobs)
        assert shelf.values(after.weights) == [1.0]
        assert after.numbers["server_step"] <= 500.0


def test_fedexp_releases_the_mean_of_the_last_two_versions(shelf: Shelf) -> None:
    states = shelf.run(strategy_of(study_of(name="fedexp")), [[2.0], [4.0]], start=[10.0])
    assert [shelf.values(state.weights)[0] for state in states] == [10.0, 12.0, 16.0]
    assert [shelf.values(state.released)[0] for state in states] == [10.0, 12.0, 14.0]


def test_under_dp_fedexp_does_not_take_noise_for_disagreement(shelf: Shelf) -> None:
    private = {"epsilon": 8.0, "delta": 1e-4}
    study = parse_study(
        specification(strategy={"name": "fedexp"}, privacy=private, participants={"training_patients": 99})
    )
    strategy, patients, sites, values = strategy_of(study), 50.0, 8, 20_000
    deviation = math.sqrt(noise_variance(study, 1.0, patients, 1))
    noise = np.random.default_rng(5).normal(0, deviation, (sites, values)).astype(np.float32)
    updates = shelf.updates(noise, [patients] * sites)
    state = strategy.init(shelf.put(np.zeros(values, np.float32)))
    naive = strategy.apply(state, updates, shelf.blobs, RoundFacts(1, sites, noise_multiplier=None))
    knowing = strategy.apply(state, updates, shelf.blobs, RoundFacts(1, sites, noise_multiplier=1.0))
    assert naive.numbers["server_step"] == pytest.approx(sites / 2, rel=0.05)
    assert knowing.numbers["server_step"] == 1.0


def test_fedexp_takes_off_the_noise_of_the_round_an_update_was_trained_in(shelf: Shelf) -> None:
    study = parse_study(
        specification(
            rounds=2,
            strategy={"name": "fedexp"},
            training={"local_steps": 1, "sampling_rate": 0.1, "learning_rate": 1.0, "schedule": "cosine"},
            privacy={"epsilon": 8.0, "delta": 1e-4, "clip_norm": 1.0},
            participants={"training_patients": 100},
        )
    )
    strategy, facts = strategy_of(study), RoundFacts(number=2, trainers=2, noise_multiplier=1.0)
    state = strategy.init(shelf.put([0.0, 0.0]))
    rows = shelf.updates([[3.0, 0.0], [-1.0, 0.0]], [10.0, 10.0])

    def step(rounds: tuple[int, int]) -> float:
        updates = [replace(update, round=number) for update, number in zip(rows, rounds, strict=True)]
        return strategy.apply(state, updates, shelf.blobs, facts).numbers["server_step"]

    # One patient is drawn, so a step's noise has deviation 1 in round 1 and 0.5 in round 2; two values. Lengths 9 and
    # 1; the mean's is 1. Both of round 2: (8.5 + 0.5) / 2 = 4.5. The first of round 1: (7 + 0.5) / 2 = 3.75.
    assert step((2, 2)) == pytest.approx(4.5 / (2 * (1 + 1e-3 * 4.5)))
    assert step((1, 2)) == pytest.approx(3.75 / (2 * (1 + 1e-3 * 3.75)))
