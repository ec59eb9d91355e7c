"""Each step against numbers by hand: one weight matrix (1, 2), written as a list of two."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from protocol.errors import SpecificationError
from protocol.study import StudySpec
from protocol.tensors import Weights
from site_node.errors import BaseUnavailableError
from site_node.training.corrections import Correction, next_control, proximal, scaffold
from site_node.training.networks import initial_weights
from site_node.training.trainer import train
from tests.site_node.training.examples import make_noise, make_patients, make_study

PATIENTS = make_patients([1, 2, 3, 1] * 4)


def weights(*values: float) -> Weights:
    return {"weight": np.array([values], np.float32)}


def corrected(correction: Correction, gradient: Sequence[float], now: Sequence[float]) -> list[float]:
    network = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([list(now)]))
    added = correction.on(network).added_to(torch.tensor(gradient), network)
    return [float(value) for value in added]


def with_strategy(name: str, **training: Any) -> StudySpec:
    study = make_study(epsilon=None, **training)
    document = study.model_dump(mode="json", by_alias=True)
    return StudySpec.model_validate({**document, "strategy": {"name": name}})


def test_without_a_correction_a_gradient_stays_the_same_object() -> None:
    network, gradient = nn.Linear(2, 1), torch.ones(3)
    assert Correction().on(network).added_to(gradient, network) is gradient


def test_fedprox_adds_mu_times_the_way_from_the_version() -> None:
    # gradient (1, -1) at w = (3, 5), version (1, 1), mu = 0.5: (1, -1) + 0.5 (2, 4) = (2, 1)
    pulled = proximal(make_study(proximal=0.5), weights(1, 1))
    assert corrected(pulled, [1.0, -1.0], [3.0, 5.0]) == [2.0, 1.0]
    assert proximal(make_study(), weights(1, 1)) == Correction()


def test_scaffold_adds_the_common_control_variate_less_the_site_s_own() -> None:
    # gradient (1, -1), c = (0.5, 0), c_i = (0.25, 2): (1, -1) + (0.25, -2)
    assert corrected(scaffold(weights(0.5, 0), weights(0.25, 2)), [1.0, -1.0], [9.0, 9.0]) == [1.25, -3.0]


def test_a_control_variate_that_is_not_there_yet_is_zero() -> None:
    assert scaffold(None, None) == Correction()
    assert corrected(scaffold(weights(0.5, 1), None), [0.0, 0.0], [0.0, 0.0]) == [0.5, 1.0]
    assert corrected(scaffold(None, weights(0.5, 1)), [0.0, 0.0], [0.0, 0.0]) == [-0.5, -1.0]


def test_the_next_control_variate_is_option_2_of_the_paper() -> None:
    # K = 4 steps of 0.25: K eta = 1. c_i' = c_i - c + (x - y) = (2, 0) - (1, 1) + (0.5, -3) = (1.5, -4)
    study = with_strategy("scaffold", local_steps=4, learning_rate=0.25)
    made = next_control(study, 1, weights(1, 1), weights(2, 0), weights(-0.5, 3))
    assert made["weight"].tolist() == [[1.5, -4.0]]


def test_the_schedule_of_the_round_counts_in_the_control_variate() -> None:
    study = with_strategy("scaffold", local_steps=4, learning_rate=0.25, schedule="linear")  # two rounds: 0.25, 0.125
    assert next_control(study, 2, None, None, weights(-0.5, 3))["weight"].tolist() == [[1.0, -6.0]]


@given(
    gradients=st.lists(st.integers(-8, 8), min_size=3, max_size=3),
    common=st.integers(-4, 4),
    own=st.integers(-4, 4),
)
def test_a_control_variate_is_the_mean_of_the_gradients_that_were_followed(
    gradients: list[int], common: int, own: int
) -> None:
    study = with_strategy("scaffold", local_steps=3, learning_rate=0.5)
    moved = sum(-0.5 * (gradient + common - own) for gradient in gradients)
    made = next_control(study, 1, weights(common, common), weights(own, own), weights(moved, moved))
    assert made["weight"][0, 0] == pytest.approx(sum(gradients) / 3, abs=1e-5)


def trained(study: StudySpec, correction: Correction | None = None, multiplier: float | None = None) -> Weights:
    return train(
        study,
        initial_weights(study),
        PATIENTS,
        make_noise(),
        noise_multiplier=multiplier,
        round_number=1,
        correction=correction,
    )


@pytest.mark.parametrize("multiplier", [None, 1.0], ids=["plain", "private"])
def test_two_steps_of_fedprox_are_two_plain_steps_with_the_second_pulled_back(multiplier: float | None) -> None:
    # w1 = x - eta g1; w2 = w1 - eta (g2 + mu (w1 - x)) = plain w2 + eta^2 mu g1 = plain w2 - eta mu (w1 - x)
    rate, mu, epsilon = 0.25, 2.0, None if multiplier is None else 8.0
    plain = trained(make_study(epsilon=epsilon, learning_rate=rate), multiplier=multiplier)
    one = trained(make_study(epsilon=epsilon, learning_rate=rate, local_steps=1), multiplier=multiplier)
    pulled = trained(make_study(epsilon=epsilon, learning_rate=rate, proximal=mu), multiplier=multiplier)
    start = initial_weights(make_study())
    for name in plain:
        expected = plain[name] - rate * mu * (one[name] - start[name])
        np.testing.assert_allclose(pulled[name], expected, atol=2e-6)


def test_a_pull_does_not_pass_through_the_clipping_of_gradients() -> None:
    study = make_study(epsilon=None, local_steps=1, learning_rate=1.0)
    start = initial_weights(study)
    far = {name: array + 10 for name, array in start.items()}
    plain, pulled = trained(study), trained(study, Correction(1.0, towards=far))
    for name in plain:
        np.testing.assert_allclose(pulled[name] - plain[name], np.full_like(plain[name], 10), atol=1e-5)


def test_a_control_variate_of_another_network_is_refused() -> None:
    with pytest.raises(BaseUnavailableError, match="not of the study's network"):
        trained(make_study(epsilon=None), scaffold(weights(1, 1), None))


def test_a_pull_needs_a_number_of_the_field() -> None:
    with pytest.raises(SpecificationError, match="proximal"):
        make_study(proximal=-1.0)
