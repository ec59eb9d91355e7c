"""A network that runs out of memory above so many images: the same weights, in smaller parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs
from torch import Tensor, nn

from protocol.study import StudySpec
from protocol.tensors import Weights
from site_node.memory_shortages import note_shortage
from site_node.privacy.layerwise import LayerwiseGradients
from site_node.training import evaluation, shared_noise, trainer
from site_node.training.evaluation import evaluate
from site_node.training.networks import build_network, initial_weights
from site_node.training.parts import Parts, begun_smaller
from site_node.training.shared_noise import noised_step
from site_node.training.task_device import TaskDevice
from site_node.training.trainer import train
from tests.site_node.training.examples import make_noise, make_patients, make_study
from tests.site_node.training.test_shared_noise import shared_study

COUNTS = [1, 2, 3, 1, 2, 1, 3, 2]
PATIENTS = make_patients(COUNTS)
EVERYBODY: dict[str, Any] = {"sampling_rate": 1.0, "learning_rate": 0.05}


class Card:
    """The memory of a GPU that holds so many images: what a network was shown, and what was too much."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.shown: list[int] = []
        self.refused = 0

    def build(self, study: StudySpec) -> nn.Module:
        network = build_network(study)
        network.register_forward_pre_hook(self._look)
        return network

    def _look(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
        self.shown.append(len(inputs[0]))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Card]:
    def with_memory(most: int) -> Card:
        made = Card(most)
        for module in (trainer, evaluation, shared_noise):
            monkeypatch.setattr(module, "build_network", made.build)
        return made

    return with_memory


def trained(study: StudySpec, noise_multiplier: float | None) -> Weights:
    return train(
        study, initial_weights(study), PATIENTS, make_noise(), noise_multiplier=noise_multiplier, round_number=1
    )


def assert_same(one: Weights, other: Weights) -> None:
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("most", [3, 7])
@pytest.mark.parametrize("noise_multiplier", [None, 1.0], ids=["plain", "private"])
def test_a_step_that_does_not_fit_is_made_in_parts_of_the_same_patients(
    card: Callable[[int], Card], most: int, noise_multiplier: float | None
) -> None:
    study = make_study(epsilon=None if noise_multiplier is None else 8.0, local_steps=3, **EVERYBODY)
    expected = trained(study, noise_multiplier)
    small = card(most)
    assert_same(trained(study, noise_multiplier), expected)
    assert small.refused > 0
    assert max(small.shown) <= most


def test_what_was_learned_holds_for_the_round_and_is_said_once_without_a_number(card: Callable[[int], Card]) -> None:
    counted = []
    for steps in (1, 4):
        small = card(3)
        with capture_logs() as logs:
            trained(make_study(local_steps=steps, **EVERYBODY), 1.0)
        counted.append(small.refused)
        assert [entry["event"] for entry in logs] == ["memory_is_short"]
        assert not any(letter.isdigit() for entry in logs for value in entry.values() for letter in str(value))
    assert counted[0] == counted[1] > 0


def test_no_patient_counts_twice_when_memory_ends_in_the_middle_of_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(**EVERYBODY)
    expected = trained(study, 1e-3)
    added, refused = LayerwiseGradients.add_weighted_sum, []

    def short(self: LayerwiseGradients, factors: Tensor, total: Tensor) -> None:
        added(self, factors, total)
        if len(factors) > 2:
            refused.append(len(factors))
            raise torch.OutOfMemoryError

    monkeypatch.setattr(LayerwiseGradients, "add_weighted_sum", short)
    assert_same(trained(study, 1e-3), expected)
    assert refused


def test_a_single_patient_who_does_not_fit_fails_as_before(card: Callable[[int], Card]) -> None:
    small = card(2)  # some have three images
    with pytest.raises(torch.OutOfMemoryError):
        trained(make_study(**EVERYBODY), 1.0)
    assert small.refused < 10


def test_a_step_that_is_no_sum_over_patients_is_not_parted(card: Callable[[int], Card]) -> None:
    small = card(7)
    with pytest.raises(torch.OutOfMemoryError):
        trained(make_study(epsilon=None, normalisation="batch", **EVERYBODY), None)
    assert small.refused == 1


def test_a_step_under_shared_noise_is_made_in_parts_too(card: Callable[[int], Card]) -> None:
    study = shared_study()

    def step() -> Any:
        return noised_step(study, initial_weights(study), PATIENTS, make_noise(), noise_multiplier=1.0)

    expected = step()
    small = card(3)
    assert np.abs(step() - expected).max() <= 1  # of a grid: rounding
    assert small.refused > 0


def test_an_evaluation_that_does_not_fit_is_made_in_parts(card: Callable[[int], Card]) -> None:
    study = make_study()
    expected = evaluate(study, initial_weights(study), {"test": PATIENTS}, make_noise())
    small = card(4)
    assert evaluate(study, initial_weights(study), {"test": PATIENTS}, make_noise()) == expected
    assert sum(small.shown) == sum(COUNTS)
    assert small.refused > 0
    card(0)
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(study, initial_weights(study), {"test": PATIENTS}, make_noise())


def test_parts_are_halved_from_what_is_there_down_to_what_cannot_be_parted() -> None:
    tried: list[int] = []

    def never(at_once: int) -> None:
        tried.append(at_once)
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        Parts(256).computed(never, images=12, least=2)
    assert tried == [256, 6, 3, 1]


def test_without_a_gpu_parts_are_halved_too_until_the_machine_s_memory_suffices() -> None:
    tried: list[int] = []

    def large(at_once: int) -> int:
        tried.append(at_once)
        return len(torch.empty(2**50 if at_once > 16 else 1, dtype=torch.uint8))  # torch's own error, at once

    parts = Parts(64)
    assert parts.computed(large, images=64) == 1
    assert (tried, parts.images_at_once) == ([64, 32, 16], 16)


@pytest.mark.parametrize(("attempts", "expected"), [(0, 64), (1, 32), (2, 16), (9, 1)])
def test_after_each_attempt_that_was_killed_for_memory_the_next_begins_with_half_as_many(
    tmp_path: Path, attempts: int, expected: int
) -> None:
    for _ in range(attempts):
        note_shortage(tmp_path / "task")
    with TaskDevice(tmp_path / "task", may_use_cpu=False).as_recorded():
        assert Parts(64).images_at_once == expected
        assert Parts(64, may_be_smaller=False).images_at_once == 64
    assert Parts(64).images_at_once == 64


@pytest.mark.parametrize("noise_multiplier", [None, 1.0], ids=["plain", "private"])
def test_the_update_of_a_later_attempt_is_the_same_up_to_rounding(
    card: Callable[[int], Card], monkeypatch: pytest.MonkeyPatch, noise_multiplier: float | None
) -> None:
    monkeypatch.setattr(trainer, "images_at_once", lambda _: 12)
    study = make_study(epsilon=None if noise_multiplier is None else 8.0, local_steps=3, **EVERYBODY)
    expected = trained(study, noise_multiplier)
    large = card(sum(COUNTS))
    with begun_smaller(2):
        assert_same(trained(study, noise_multiplier), expected)
    assert max(large.shown) == 3
