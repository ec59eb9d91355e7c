import numpy as np
import pytest
import zstandard
from numpy.typing import NDArray

from protocol.errors import MaskingError
from protocol.manifest import manifest_of
from protocol.secure_aggregation.ring import Ring
from protocol.study import parse_study
from protocol.tensors import decode_weights
from site_node.errors import BaseUnavailableError, NotFiniteError
from site_node.privacy.noise import NoiseSource
from site_node.update.steps import Rounding, difference, update_payload, weights_payload
from tests.site_node.training.examples import make_study

BASE = {"a": np.array([1.0, 2.0], np.float32), "b": np.array([[3.0]], np.float32)}
TRAINED = {"a": np.array([1.5, 1.0], np.float32), "b": np.array([[3.25]], np.float32)}
UPDATE = difference(BASE, TRAINED)
ZSTANDARD = make_study()
NONE = parse_study(ZSTANDARD.model_dump(mode="json", by_alias=True) | {"transport": {"upload": []}})


def test_an_update_is_the_difference_as_a_weights_file() -> None:
    payload = update_payload(NONE, UPDATE)
    assert payload.steps == ("difference",)
    assert payload.manifest_digest == manifest_of(BASE).digest
    update = decode_weights(payload.data)
    assert update["a"].tolist() == [0.5, -1.0]
    assert update["b"].tolist() == [[0.25]]


def test_the_steps_undone_in_reverse_give_the_trained_weights() -> None:
    payload = update_payload(ZSTANDARD, UPDATE)
    assert payload.steps == ("difference", "zstandard")
    update = decode_weights(zstandard.ZstdDecompressor().decompress(payload.data))
    assert all(np.array_equal(BASE[name] + update[name], TRAINED[name]) for name in BASE)


def test_version_0_travels_as_it_is() -> None:
    payload = weights_payload(NONE, BASE)
    assert payload.steps == ("weights",)
    assert all(np.array_equal(array, BASE[name]) for name, array in decode_weights(payload.data).items())
    assert weights_payload(ZSTANDARD, BASE).steps == ("weights", "zstandard")


def test_the_same_update_gives_the_same_bytes() -> None:
    assert update_payload(ZSTANDARD, UPDATE) == update_payload(ZSTANDARD, UPDATE)


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(BaseUnavailableError):
        difference(BASE, {"a": TRAINED["a"]})


def test_an_update_that_is_not_finite_never_becomes_a_payload() -> None:
    with pytest.raises(NotFiniteError, match="finite"):
        update_payload(NONE, {**UPDATE, "b": np.array([[np.inf]], np.float32)})


MASKED = parse_study(
    NONE.model_dump(mode="json", by_alias=True)
    | {
        "participants": {"minimum_sites": 4, "training_patients": 100},
        "secure_aggregation": {"method": "masking", "maximum_sites": 8, "maximum_weight": 100, "value_range": 2.0},
    }
)


def no_chance(count: int) -> NDArray[np.uint32]:
    return np.zeros(count, np.uint32)


def test_an_update_under_masks_is_rounded_integers_of_the_weighted_difference() -> None:
    payload = update_payload(MASKED, UPDATE, Rounding(training_patients=50, draws=no_chance))
    assert payload.steps == ("difference", "quantised")
    assert payload.manifest_digest == manifest_of(BASE).digest
    # 0.5, -1 and 0.25, times 50/100, in units of 2/4095, rounded down because chance is left out.
    assert Ring(16).decode(Ring(16).from_bytes(payload.data)).tolist() == [511, -1024, 255]


def test_rounding_is_drawn_from_the_task_s_own_secret_stream() -> None:
    task, other = (NoiseSource(bytes(32), digest, "sha256:" + "c" * 64) for digest in ("sha256:1", "sha256:2"))
    again = NoiseSource(bytes(32), "sha256:1", "sha256:" + "c" * 64)
    draws = task.rounding.halves(1001)
    assert np.array_equal(draws, again.rounding.halves(1001))
    assert not np.array_equal(draws, other.rounding.halves(1001))
    assert not np.array_equal(draws, again.gradients.halves(1001))


def test_an_update_under_masks_is_never_sent_unrounded_or_not_finite() -> None:
    with pytest.raises(MaskingError, match="rounded first"):
        update_payload(MASKED, UPDATE)
    broken = {**UPDATE, "b": np.array([[np.nan]], np.float32)}
    with pytest.raises(NotFiniteError, match="finite"):
        update_payload(MASKED, broken, Rounding(50, no_chance))
