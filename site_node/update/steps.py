"""The steps that an update takes before it is handed over, as one list; the hub undoes them in reverse.

    difference   new weights - base weights (an update); for version 0 there is no base: `weights`
    zstandard    lossless compression, if the study says so
    quantised    bounded integers instead of floats, if the sum is to be made under masks (`quantised.py`)
    gradient     the clipped sum of one step over the drawn patients, instead of a difference, and
    skellam      its integers with this site's share of the noise, if the sum is to carry the noise (`shared-noise`)

The gate adds `masked` to the list when it masks the integers; the worker knows no mask.

Noise is no step: it came in training, before anything here. The names of the steps taken travel with the update.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import zstandard
from numpy.typing import NDArray

from protocol.errors import MaskingError, TensorError
from protocol.manifest import manifest_of
from protocol.shared_noise import RING
from protocol.study import StudySpec
from protocol.tensors import Weights, encode_weights
from site_node.errors import BaseUnavailableError
from site_node.update.quantised import Draws, quantised_bytes

Step = Literal["difference", "weights", "gradient", "zstandard", "quantised", "skellam"]
ZSTANDARD_LEVEL = 1
"""Float noise hardly compresses; higher levels cost time and win nothing."""


@dataclass(frozen=True)
class Payload:
    """Bytes to hand over, the steps that made them, and the manifest of the tensors inside."""

    data: bytes
    steps: tuple[Step, ...]
    manifest_digest: str


BytesStep = Callable[[bytes], bytes]
BYTES_STEPS: dict[str, tuple[tuple[Step, BytesStep], ...]] = {
    "none": (),
    "zstandard": (("zstandard", lambda data: zstandard.ZstdCompressor(level=ZSTANDARD_LEVEL).compress(data)),),
}


@dataclass(frozen=True)
class Rounding:
    """What rounding needs beside the values: the site's public figure, and secret draws."""

    training_patients: int
    draws: Draws


def update_payload(study: StudySpec, base: Weights, trained: Weights, rounding: Rounding | None = None) -> Payload:
    """Return what a site hands over after training; `rounding` is needed where the study adds under masks.

    Raises: BaseUnavailableError if base and trained weights are not of one model; TensorError if the update is not
        finite; MaskingError if the study needs a rounding that was not given.
    """
    return difference_payload(study, difference(base, trained), rounding)


def difference_payload(study: StudySpec, update: Weights, rounding: Rounding | None = None) -> Payload:
    """Return a difference of weights as it is handed over; see `update_payload`."""
    if study.secure_aggregation.method == "none":
        return _payload(study, update, "difference")
    _check_finite(update)
    if rounding is None:
        raise MaskingError("An update that is added under masks is rounded first.")
    data = quantised_bytes(study, update, rounding.training_patients, rounding.draws)
    return Payload(data, ("difference", "quantised"), manifest_of(update).digest)


def integers_payload(base: Weights, integers: NDArray[np.int64]) -> Payload:
    """Return one step's noised integers (`training/shared_noise.py`) as words of the ring, to be masked by the gate."""
    return Payload(RING.encode(integers).tobytes(), ("gradient", "skellam"), manifest_of(base).digest)


def weights_payload(study: StudySpec, weights: Weights) -> Payload:
    """Return version 0 as it is handed over."""
    return _payload(study, weights, "weights")


def difference(base: Weights, trained: Weights) -> Weights:
    """Return trained - base, tensor by tensor.

    Raises: BaseUnavailableError if they are not of one model.
    """
    if manifest_of(base) != manifest_of(trained):
        raise BaseUnavailableError("The version's tensors are not those of the trained network.")
    return {name: np.asarray(trained[name] - base[name], np.float32) for name in trained}


def _payload(study: StudySpec, tensors: Weights, first: Step) -> Payload:
    _check_finite(tensors)
    data = encode_weights(tensors)
    steps: list[Step] = [first]
    for name, step in BYTES_STEPS[study.transport.compression]:
        data = step(data)
        steps.append(name)
    return Payload(data, tuple(steps), manifest_of(tensors).digest)


def _check_finite(tensors: Weights) -> None:
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise TensorError("An update must be finite.")
