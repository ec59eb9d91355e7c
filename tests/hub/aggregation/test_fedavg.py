"""FedAvg against numbers that one can compute by hand, and its promise to be the same to the bit."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hub.aggregation.choosing import strategy_of
from hub.aggregation.chunks import side_by_side, squared_norm
from hub.aggregation.composed import Composed
from hub.aggregation.fedavg import FedAvg
from hub.aggregation.iterate_mean import ExponentialMean
from hub.aggregation.joining import Mean
from hub.aggregation.strategy import CountedUpdate, ServerState
from hub.aggregation.weighted_mean import weighted_mean
from hub.aggregation.weighting import AsSent
from hub.errors import AggregationError
from hub.registry.blobs import BlobStore
from protocol.manifest import manifest_of
from protocol.study import parse_study
from protocol.tensors import Weights, decode_weights, encode_weights
from tests.hub.conftest import specification


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def fedavg(learning_rate: float = 1.0, averaging: float = 0.0) -> Composed:
    return Composed(Mean(AsSent()), FedAvg(learning_rate), ExponentialMean(averaging) if averaging else None)


def model(*values: float) -> Weights:
    return {"w": np.array(values, np.float32)}


def put(blobs: BlobStore, *values: float) -> str:
    return blobs.put(encode_weights(model(*values)))


def counted(blobs: BlobStore, *updates: tuple[float, tuple[float, ...]]) -> list[CountedUpdate]:
    return [CountedUpdate(f"s{i}", put(blobs, *values), weight) for i, (weight, values) in enumerate(updates)]


def values_of(blobs: BlobStore, digest: str) -> list[float]:
    return [float(value) for value in decode_weights(blobs.path(digest))["w"]]


def test_the_weighted_mean_is_added_to_the_base(blobs: BlobStore) -> None:
    state = fedavg().init(put(blobs, 10.0, 20.0))
    after = fedavg().apply(state, counted(blobs, (1.0, (1.0, 0.0)), (3.0, (5.0, 4.0))), blobs)
    assert values_of(blobs, after.released) == [14.0, 23.0]
    assert after == ServerState(step=1, weights=after.released)


def test_the_learning_rate_scales_the_step(blobs: BlobStore) -> None:
    strategy = fedavg(learning_rate=0.5)
    after = strategy.apply(strategy.init(put(blobs, 1.0)), counted(blobs, (2.0, (4.0,))), blobs)
    assert values_of(blobs, after.released) == [3.0]


def test_the_exponential_mean_forgets_version_zero(blobs: BlobStore) -> None:
    strategy = fedavg(averaging=0.5)
    state = strategy.init(put(blobs, 100.0))
    released = []
    for step in (-96.0, 8.0, 8.0):  # weights 4, 12, 20
        state = strategy.apply(state, counted(blobs, (1.0, (step,))), blobs)
        released.append(values_of(blobs, state.released)[0])
    assert values_of(blobs, state.weights) == [20.0]
    # 4; (0.5 x 4 + 12) / 1.5; (0.25 x 4 + 0.5 x 12 + 20) / 1.75
    np.testing.assert_allclose(released, [4.0, 14 / 1.5, 27 / 1.75], rtol=1e-6)


def test_the_state_survives_its_document() -> None:
    state = ServerState(3, "sha256:" + "a" * 64, {"mean": "sha256:" + "b" * 64, "momentum": "x"}, {"server_step": 2.5})
    assert ServerState.from_document(state.document()) == state


def test_a_state_of_the_first_form_is_still_read() -> None:
    written = {"schema": "wardround.server-state/1", "step": 2, "weights": "w", "mean": "m", "update_norm": 0.5}
    assert ServerState.from_document(written) == ServerState(2, "w", {"mean": "m"}, {"update_norm": 0.5})
    assert ServerState.from_document({**written, "mean": None, "update_norm": None}) == ServerState(2, "w")


def test_applying_again_gives_the_same_blobs(blobs: BlobStore) -> None:
    strategy = fedavg(learning_rate=0.7, averaging=0.9)
    state = ServerState(4, put(blobs, 0.1, 0.2), {"mean": put(blobs, 0.3, 0.3)})
    updates = counted(blobs, (3.0, (0.1, 1e-9)), (5.0, (1e9, -0.1)))
    assert strategy.apply(state, updates, blobs) == strategy.apply(state, updates, blobs)


def test_no_update_makes_no_version(blobs: BlobStore) -> None:
    with pytest.raises(AggregationError):
        fedavg().apply(fedavg().init(put(blobs, 1.0)), [], blobs)


def test_a_version_that_is_not_finite_is_never_made(blobs: BlobStore) -> None:
    state = fedavg().init(put(blobs, 3e38))
    with pytest.raises(AggregationError, match="finite"):
        fedavg().apply(state, counted(blobs, (1.0, (3e38,))), blobs)


def test_blobs_of_another_model_are_not_summed(blobs: BlobStore) -> None:
    state = fedavg().init(put(blobs, 1.0, 2.0))
    with pytest.raises(AggregationError, match="manifest"):
        fedavg().apply(state, counted(blobs, (1.0, (1.0,))), blobs)


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0]])
def test_weights_must_fit_the_updates(weights: list[float]) -> None:
    with pytest.raises(AggregationError):
        weighted_mean(np.ones((2, 3), np.float32), weights)


def test_a_study_chooses_its_strategy() -> None:
    study = parse_study(specification(strategy={"learning_rate": 0.5, "averaging": 0.25}))
    assert strategy_of(study) == fedavg(learning_rate=0.5, averaging=0.25)


@given(
    parameters=st.integers(1, 5000),
    sites=st.integers(1, 6),
    window_bytes=st.integers(1, 60_000),
    seed=st.integers(0, 2**32 - 1),
)
def test_windows_cover_every_value_once_and_do_not_change_a_bit(
    tmp_path_factory: pytest.TempPathFactory, parameters: int, sites: int, window_bytes: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    matrix: NDArray[np.float32] = generator.standard_normal((sites, parameters)).astype(np.float32)
    folder = tmp_path_factory.mktemp("windows")
    paths = []
    for number, row in enumerate(matrix):
        path = folder / str(number)
        path.write_bytes(encode_weights({"w": row}))
        paths.append(path)
    manifest = manifest_of({"w": matrix[0]})
    weights = list(generator.uniform(0.1, 9.0, sites))
    windows = [(w.copy(), weighted_mean(w, weights)) for w in side_by_side(paths, manifest, window_bytes)]
    np.testing.assert_array_equal(np.concatenate([w for w, _ in windows], axis=1), matrix)
    np.testing.assert_array_equal(np.concatenate([m for _, m in windows]), weighted_mean(matrix, weights))
    assert squared_norm(paths[0], manifest) == pytest.approx(float((matrix[0].astype(np.float64) ** 2).sum()))


def test_memory_is_a_window_whatever_the_number_of_sites(blobs: BlobStore) -> None:
    digest = blobs.put(encode_weights({"w": np.ones(100_000, np.float32)}))
    manifest = manifest_of({"w": np.ones(100_000, np.float32)})
    for sites in (2, 32):
        shapes = [w.shape for w in side_by_side([blobs.path(digest)] * sites, manifest, window_bytes=1 << 20)]
        assert all(files == sites and files * values * 4 <= 1 << 20 for files, values in shapes)
        assert sum(values for _, values in shapes) == 100_000
        assert all(first >= second for (_, first), (_, second) in pairwise(shapes))
