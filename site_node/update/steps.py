"""The steps that an update takes before it is handed over, as one list; the hub undoes them in reverse.

    difference   new weights - base weights (an update); for version 0 there is no base: `weights`
    gradient     the clipped sum of one step over the drawn patients, instead of a difference
    top-k, random-k, quantise, half   fewer values, or fewer bits for each (`protocol/compression/`)
    zstandard    lossless compression
    quantised    bounded integers, if the sum is to be made under masks (`quantised.py`), or
    skellam      integers with this site's share of the noise, if the sum is to carry the noise (`shared-noise`)

The study's `transport.upload` names those of the middle. Before them what earlier updates lost is added, if the study
keeps it, and after them what is lost now is kept, at this site (error feedback): the *residual*. The gate adds `masked`
to the list when it masks the integers; the worker knows no mask.

Noise is no step: it came in training, before anything here. So whatever is done here to a noised difference is
post-processing, the residual too: it is made of differences that were ready to leave, and of nothing else.
The names of the steps taken travel with the update.
Source of error feedback: Stich et al. 2018, arXiv:1809.07599; Karimireddy et al. 2019, arXiv:1901.09847.
"""

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import zstandard
from numpy.typing import NDArray

from protocol.compression.coding import decoded, encoded
from protocol.compression.terms import keeps_residual, upload_steps, upload_terms
from protocol.errors import CodecError, MaskingError
from protocol.manifest import Manifest, manifest_of
from protocol.shared_noise import RING
from protocol.study import StudySpec
from protocol.tensors import Vector, Weights, empty_weights, flatten, unflatten, weights_file
from site_node.errors import BaseUnavailableError, NotFiniteError
from site_node.training.local_state import LocalState
from site_node.update.quantised import Draws, quantised

Step = Literal[
    "difference", "weights", "gradient", "top-k", "random-k", "quantise", "half", "zstandard", "quantised", "skellam"
]
RESIDUAL = "residual"
ZSTANDARD_LEVEL = 1
"""Float noise hardly compresses; higher levels cost time and win nothing."""


@dataclass(frozen=True)
class Payload:
    """Bytes to hand over, the steps that made them, and the manifest of the tensors inside."""

    data: bytes | memoryview
    steps: tuple[Step, ...]
    manifest_digest: str


@dataclass(frozen=True)
class Rounding:
    """What the steps need beside the values: the site's public figure, secret draws, the round and the site's state."""

    training_patients: int
    draws: Draws
    round: int = 0
    state: LocalState | None = None


def update_payload(study: StudySpec, update: Weights, rounding: Rounding | None = None) -> Payload:
    """Return an update as it is handed over; `rounding` is needed where the study adds under masks or codes updates.

    Raises: NotFiniteError if the update is not finite; MaskingError if the study needs a rounding that was not given.
    """
    masked, steps = study.secure_aggregation.method != "none", upload_steps(study)
    if not masked and not steps.is_coded:
        return _payload(study, update, "difference")
    _check_finite(update)
    if rounding is None:
        raise MaskingError("An update of this study is rounded first: that needs secret draws and its round.")
    manifest = manifest_of(update)
    vector = _with_residual(study, flatten(update, manifest), rounding)
    if masked:
        figures = (rounding.round, rounding.training_patients, rounding.draws)
        data, said = quantised(study, vector, manifest, *figures)
    else:
        terms = upload_terms(study, manifest, rounding.round)
        data = b"".join(encoded([vector], terms, rounding.draws))
        said = decoded(data, terms)
    _keep_residual(study, vector - said, manifest, rounding)
    names = cast("tuple[Step, ...]", steps.names)
    if masked:
        return Payload(data, ("difference", *names, "quantised"), manifest.digest)
    return Payload(_zstandard(data) if steps.zstandard else data, ("difference", *names), manifest.digest)


def integers_payload(base: Weights, integers: NDArray[np.int64]) -> Payload:
    """Return one step's noised integers (`training/shared_noise.py`) as words of the ring, to be masked by the gate."""
    return Payload(RING.encode(integers).tobytes(), ("gradient", "skellam"), manifest_of(base).digest)


def weights_payload(study: StudySpec, weights: Weights) -> Payload:
    """Return version 0 as it is handed over."""
    return _payload(study, weights, "weights")


def difference(base: Weights, trained: Weights) -> Weights:
    """Return trained - base, tensor by tensor; it lies in memory as its weights file does.

    Raises: BaseUnavailableError if they are not of one model.
    """
    manifest = manifest_of(base)
    if manifest != manifest_of(trained):
        raise BaseUnavailableError("The version's tensors are not those of the trained network.")
    update = empty_weights(manifest)
    for name, values in update.items():
        np.subtract(trained[name], base[name], out=values)
    return update


def _payload(study: StudySpec, tensors: Weights, first: Step) -> Payload:
    _check_finite(tensors)
    data, digest = weights_file(tensors), manifest_of(tensors).digest
    if upload_steps(study).zstandard:
        return Payload(_zstandard(data), (first, "zstandard"), digest)
    return Payload(data, (first,), digest)


def _zstandard(data: bytes | memoryview) -> bytes:
    return zstandard.ZstdCompressor(level=ZSTANDARD_LEVEL).compress(data)


def _with_residual(study: StudySpec, vector: Vector, rounding: Rounding) -> Vector:
    if not keeps_residual(study):
        return vector
    if rounding.state is None:
        raise CodecError("Error feedback needs the site's state of the study.")
    kept = rounding.state.before(RESIDUAL)
    return vector if kept is None else vector + flatten(kept, manifest_of(kept))


def _keep_residual(study: StudySpec, residual: Vector, manifest: Manifest, rounding: Rounding) -> None:
    if keeps_residual(study) and rounding.state is not None:
        rounding.state.keep(RESIDUAL, unflatten(residual, manifest))


def _check_finite(tensors: Weights) -> None:
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise NotFiniteError("An update must be finite.", "The study should lower its learning rate.")
