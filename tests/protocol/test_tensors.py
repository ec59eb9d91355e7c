from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from protocol.errors import TensorError
from protocol.manifest import Manifest, manifest_of
from protocol.tensors import (
    Weights,
    decode_weights,
    empty_weights,
    encode_weights,
    flatten,
    norm_of,
    read_manifest,
    unflatten,
    weights_file,
    weights_over,
)

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8).filter(
    lambda name: name != "__metadata__"
)
ARRAYS = arrays(np.float32, array_shapes(min_dims=0, max_side=4), elements=st.floats(width=32, allow_nan=False))
WEIGHTS = st.dictionaries(NAMES, ARRAYS, min_size=1, max_size=5)


@given(WEIGHTS)
def test_a_weights_file_is_safetensors_and_reads_back_to_the_bit(weights: Weights) -> None:
    data = encode_weights(weights)
    for read in (decode_weights(data), safetensors.numpy.load(data)):
        assert read.keys() == weights.keys()
        assert all(np.array_equal(read[name], weights[name]) for name in weights)


@given(WEIGHTS)
def test_flat_and_named_are_the_same_values(weights: Weights) -> None:
    manifest = manifest_of(weights)
    vector = flatten(weights, manifest)
    assert vector.shape == (manifest.parameters,)
    assert encode_weights(unflatten(vector, manifest)) == encode_weights(weights)


@given(WEIGHTS)
def test_equal_manifests_give_equal_headers_and_survive_their_bytes(weights: Weights) -> None:
    manifest = manifest_of(weights)
    assert Manifest.from_bytes(manifest.canonical_bytes()) == manifest == read_manifest(encode_weights(weights))
    assert encode_weights(weights).startswith(manifest.header)


@given(WEIGHTS)
def test_arrays_that_lie_as_in_a_weights_file_are_that_file(weights: Weights) -> None:
    laid_out = empty_weights(manifest_of(weights))
    for name, values in laid_out.items():
        values[...] = weights[name]
    file = weights_file(laid_out)
    assert bytes(file) == encode_weights(weights) == bytes(weights_file(weights))
    assert all(np.shares_memory(np.frombuffer(file, np.uint8), array) for array in laid_out.values() if array.size)


def test_an_array_that_was_exchanged_is_in_the_file() -> None:
    laid_out = empty_weights(manifest_of({"a": np.zeros(3, np.float32), "b": np.zeros(2, np.float32)}))
    laid_out["a"][:], laid_out["b"][:] = 1, 2
    exchanged = {"a": np.full(3, 5, np.float32), "b": laid_out["b"]}
    swapped = {"a": laid_out["a"], "b": laid_out["a"][:2]}
    assert bytes(weights_file(exchanged)) == encode_weights(exchanged)
    assert bytes(weights_file(swapped)) == encode_weights(swapped)
    assert bytes(weights_file({"b": laid_out["b"], "a": laid_out["a"]})) == encode_weights(laid_out)


def test_a_file_says_its_manifest_as_the_arrays_do(tmp_path: Path) -> None:
    weights = {"w": np.ones((2, 3), np.float32)[:, ::2], "b": np.float32(3) * np.ones((), np.float32)}
    (tmp_path / "w").write_bytes(encode_weights(weights))
    assert read_manifest(tmp_path / "w") == manifest_of(weights)


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b"", lambda d: b"\xff" * 9, lambda d: d[:9]]
)
def test_a_damaged_file_is_refused(damage: object) -> None:
    data = encode_weights({"w": np.ones(4, np.float32)})
    with pytest.raises(TensorError):
        decode_weights(damage(data))  # type: ignore[operator]


def test_another_layout_is_refused_though_safetensors_reads_it() -> None:
    with pytest.raises(TensorError):
        decode_weights(safetensors.numpy.save({"w": np.ones(4, np.float64)}))
    with pytest.raises(TensorError):
        decode_weights(safetensors.numpy.save({"w": np.ones(4, np.float32)}, metadata={"a": "b"}))


def test_another_models_weights_are_refused() -> None:
    with pytest.raises(TensorError, match="expected manifest"):
        decode_weights(encode_weights({"w": np.ones(4, np.float32)}), manifest_of({"w": np.ones(5, np.float32)}))


def test_the_norm_is_over_all_values() -> None:
    assert norm_of({"a": np.array([3], np.float32), "b": np.array([[4]], np.float32)}) == 5.0


def test_a_file_in_memory_is_read_without_a_copy_and_its_arrays_can_be_changed() -> None:
    weights = {"a": np.array([[1.0, 2.0]], np.float32), "b": np.array([3.0], np.float32)}
    data = np.frombuffer(bytearray(encode_weights(weights)), np.uint8)
    found = weights_over(data)
    assert {name: array.tolist() for name, array in found.items()} == {"a": [[1.0, 2.0]], "b": [3.0]}
    assert all(np.shares_memory(array, data) for array in found.values())
    found["b"] += 1
    assert decode_weights(data.tobytes())["b"].tolist() == [4.0]


@pytest.mark.parametrize("size", [0, 5, 20, -1])
def test_a_file_in_memory_that_is_cut_off_is_refused(size: int) -> None:
    whole = encode_weights({"a": np.array([1.0], np.float32)})
    with pytest.raises(TensorError):
        weights_over(np.frombuffer(bytearray(whole[:size]), np.uint8))
