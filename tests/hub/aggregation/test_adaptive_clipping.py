"""The length that follows a quantile, against numbers that one can compute by hand."""

import math
from pathlib import Path

import numpy as np
import pytest

from hub.aggregation.choosing import strategy_of
from hub.aggregation.strategy import CountedUpdate, ServerState
from hub.registry.blobs import BlobStore
from protocol.study import parse_study
from protocol.tensors import decode_weights, encode_weights
from tests.protocol.test_mechanism_rules import site_level


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def put(blobs: BlobStore, value: float) -> str:
    return blobs.put(encode_weights({"w": np.array([value], np.float32)}))


def applied(blobs: BlobStore, *bits: float | None, **privacy: object) -> ServerState:
    strategy = strategy_of(parse_study(site_level(privacy={"update_norm": 2.0, **privacy})))
    updates = [CountedUpdate(f"s{i}", put(blobs, float(i)), 1.0, bit) for i, bit in enumerate(bits)]
    return strategy.apply(strategy.init(put(blobs, 10.0)), updates, blobs)


def test_the_first_length_is_the_studys(blobs: BlobStore) -> None:
    strategy = strategy_of(parse_study(site_level(privacy={"update_norm": 2.0})))
    assert strategy.init(put(blobs, 0.0)).update_norm == 2.0


def test_the_mean_is_applied_and_the_length_follows_the_bits(blobs: BlobStore) -> None:
    after = applied(blobs, 1.2, 0.9, 0.9, 0.0, update_quantile=0.5, update_norm_rate=0.2)
    assert decode_weights(blobs.path(after.released))["w"] == pytest.approx([11.5])
    assert after.update_norm == pytest.approx(2.0 * math.exp(-0.2 * 0.25))


def test_without_bits_the_length_stays(blobs: BlobStore) -> None:
    assert applied(blobs, None, None, update_norm_rate=0.0).update_norm == 2.0


def test_the_length_is_kept_with_the_version(blobs: BlobStore) -> None:
    after = applied(blobs, 1.0, 0.0)
    assert ServerState.from_document(after.document()) == after
