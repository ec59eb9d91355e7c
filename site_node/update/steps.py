"""The steps that an update takes before it is handed over, as one list; the hub undoes them in reverse.

    difference   new weights - base weights (an update); for version 0 there is no base: `weights`
    zstandard    lossless compression, if the study says so

Noise is no step: it came in training, before anything here. The names of the steps taken travel with the update.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import zstandard

from protocol.errors import TensorError
from protocol.manifest import manifest_of
from protocol.study import StudySpec
from protocol.tensors import Weights, encode_weights
from site_node.errors import BaseUnavailableError

Step = Literal["difference", "weights", "zstandard"]
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


def update_payload(study: StudySpec, base: Weights, trained: Weights) -> Payload:
    """Return what a site hands over after training.

    Raises: BaseUnavailableError if base and trained weights are not of one model.
    """
    return _payload(study, difference(base, trained), "difference")


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
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise TensorError("An update must be finite.")
    data = encode_weights(tensors)
    steps: list[Step] = [first]
    for name, step in BYTES_STEPS[study.transport.compression]:
        data = step(data)
        steps.append(name)
    return Payload(data, tuple(steps), manifest_of(tensors).digest)
