import numpy as np
import pytest
import zstandard

from protocol.errors import TensorError
from protocol.manifest import manifest_of
from protocol.study import parse_study
from protocol.tensors import decode_weights
from site_node.errors import BaseUnavailableError
from site_node.update.steps import update_payload, weights_payload
from tests.site_node.training.examples import make_study

BASE = {"a": np.array([1.0, 2.0], np.float32), "b": np.array([[3.0]], np.float32)}
TRAINED = {"a": np.array([1.5, 1.0], np.float32), "b": np.array([[3.25]], np.float32)}
ZSTANDARD = make_study()
NONE = parse_study(ZSTANDARD.model_dump(mode="json", by_alias=True) | {"transport": {"compression": "none"}})


def test_an_update_is_the_difference_as_a_weights_file() -> None:
    payload = update_payload(NONE, BASE, TRAINED)
    assert payload.steps == ("difference",)
    assert payload.manifest_digest == manifest_of(BASE).digest
    update = decode_weights(payload.data)
    assert update["a"].tolist() == [0.5, -1.0]
    assert update["b"].tolist() == [[0.25]]


def test_the_steps_undone_in_reverse_give_the_trained_weights() -> None:
    payload = update_payload(ZSTANDARD, BASE, TRAINED)
    assert payload.steps == ("difference", "zstandard")
    update = decode_weights(zstandard.ZstdDecompressor().decompress(payload.data))
    assert all(np.array_equal(BASE[name] + update[name], TRAINED[name]) for name in BASE)


def test_version_0_travels_as_it_is() -> None:
    payload = weights_payload(NONE, BASE)
    assert payload.steps == ("weights",)
    assert all(np.array_equal(array, BASE[name]) for name, array in decode_weights(payload.data).items())
    assert weights_payload(ZSTANDARD, BASE).steps == ("weights", "zstandard")


def test_the_same_update_gives_the_same_bytes() -> None:
    assert update_payload(ZSTANDARD, BASE, TRAINED) == update_payload(ZSTANDARD, BASE, TRAINED)


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(BaseUnavailableError):
        update_payload(NONE, BASE, {"a": TRAINED["a"]})


def test_an_update_that_is_not_finite_never_becomes_a_payload() -> None:
    with pytest.raises(TensorError, match="finite"):
        update_payload(NONE, BASE, {**TRAINED, "b": np.array([[np.inf]], np.float32)})
