"""The hub's own steps against numbers that one can compute by hand."""

from pathlib import Path

import numpy as np
import pytest

from hub.aggregation.choosing import strategy_of
from hub.aggregation.composed import Composed
from hub.aggregation.noised_descent import NoisedDescent
from hub.aggregation.strategy import CountedUpdate, ServerState
from hub.aggregation.unmasking import store_opened_mean
from hub.registry.blobs import BlobStore
from protocol.secure_aggregation.vector import vector_terms, weight_digits
from protocol.shared_noise import shared_noise_of
from protocol.study import parse_study
from protocol.tensors import decode_weights, encode_weights
from tests.protocol.test_shared_noise import specification


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def put(blobs: BlobStore, *values: float) -> str:
    return blobs.put(encode_weights({"w": np.array(values, np.float32)}))


def values_of(blobs: BlobStore, digest: str) -> list[float]:
    return [float(value) for value in decode_weights(blobs.path(digest))["w"]]


def steps(blobs: BlobStore, averaging: float = 0.0, **training: object) -> list[ServerState]:
    study = parse_study(specification(training={"learning_rate": 0.5, **training}, strategy={"averaging": averaging}))
    strategy = strategy_of(study)
    assert isinstance(strategy, Composed)
    assert isinstance(strategy.joining, NoisedDescent)
    states = [strategy.init(put(blobs, 10.0, 20.0))]
    gradient = CountedUpdate("all", put(blobs, 4.0, -2.0), 1.0)
    for _ in range(2):
        states.append(strategy.apply(states[-1], [gradient], blobs))
    return states


def test_each_step_goes_against_the_gradient_by_the_learning_rate(blobs: BlobStore) -> None:
    _, first, second = steps(blobs)
    assert values_of(blobs, first.released) == [8.0, 21.0]
    assert values_of(blobs, second.released) == [6.0, 22.0]
    assert second.step == 2


def test_the_learning_rate_follows_the_schedule_over_the_rounds(blobs: BlobStore) -> None:
    _, first, second = steps(blobs, schedule="cosine")
    fallen = 0.5 * 0.5 * (1 + np.cos(np.pi / 100))  # the second of a hundred rounds
    assert values_of(blobs, first.released) == [8.0, 21.0]
    assert values_of(blobs, second.released) == pytest.approx([8.0 - fallen * 4, 21.0 + fallen * 2])


def test_the_mean_of_versions_is_that_of_federated_averaging(blobs: BlobStore) -> None:
    _, _, second = steps(blobs, averaging=0.5)
    assert second.mean is not None
    assert values_of(blobs, second.mean) == pytest.approx([(0.5 * 8 + 6) / 1.5, (0.5 * 21 + 22) / 1.5])


def test_the_opened_sum_is_divided_by_the_patients_expected_in_it(blobs: BlobStore) -> None:
    study = parse_study(specification(training={"sampling_rate": 0.25}))
    terms = vector_terms(study, 2)
    assert terms.steps == ("gradient", "skellam")
    grid = shared_noise_of(study).grid
    integers = [np.array([3, -8]), np.array([5, 2])]  # of sites with 300 and 500 patients
    words = sum(
        np.concatenate([weight_digits(patients, terms.ring), terms.ring.encode(values)])
        for patients, values in zip((300, 500), integers, strict=True)
    )
    base = put(blobs, 0.0, 0.0)
    opened = blobs.put(np.asarray(words, terms.ring.dtype).tobytes())
    mean = store_opened_mean(study, 1, base, opened, 2, blobs)
    assert values_of(blobs, mean) == pytest.approx([8 * grid / 200, -6 * grid / 200])
