"""The step `quantised`: the weighted difference as bounded integers, ready to be masked by the gate.

Each value is multiplied by the site's weight (at most 1), cut to the study's range and rounded by chance to a level.
The chance comes from the site's secret stream of this task, so that a training that is run again rounds the same way.
With random-k only the values at the round's places are rounded (`protocol/compression/seeded_values.py`).
Source of the rounding: unbiased stochastic quantisation, as in Suresh et al. 2017, arXiv:1611.00429.
"""

from collections.abc import Callable, Iterator

import numpy as np
import structlog
from numpy.typing import NDArray

from protocol.compression.seeded_values import gathered, scattered
from protocol.compression.terms import upload_terms
from protocol.manifest import Manifest
from protocol.secure_aggregation.fixed_point import cut_fraction, dequantise, quantise
from protocol.secure_aggregation.ring import Integers
from protocol.secure_aggregation.vector import VectorTerms, vector_terms
from protocol.study import StudySpec
from protocol.tensors import Vector

Draws = Callable[[int], NDArray[np.uint32]]
"""Gives so many uniform secret 32-bit numbers."""
CHUNK_VALUES = 1 << 20
TOLD_FRACTION = 0.01
_log = structlog.get_logger()


def quantised(
    study: StudySpec, vector: Vector, manifest: Manifest, number: int, training_patients: int, draws: Draws
) -> tuple[bytes, Vector]:
    """Return the vector's words as the worker hands them over, and what they stand for beside the site's weight.

    Shapes: vector and result (parameter,), in the manifest's order; places that do not travel are zero in the result.
    Guarantee: every integer lies within the masked vector's bound; the same vector, round and draws give the same.
    """
    terms, coding = vector_terms(study, manifest.parameters), upload_terms(study, manifest, number)
    values, share = gathered(vector, coding), terms.share_of(training_patients)
    cut = cut_fraction(values, study.secure_aggregation.value_range, share)
    if cut > TOLD_FRACTION:
        _log.warning("values_cut", fraction=round(cut, 4), remedy="raise secure_aggregation.value_range")
    integers = list(_integers(values, terms, share, draws))
    said = (dequantise(part, terms.unit, share) for part in integers)
    return b"".join(terms.ring.encode(part).tobytes() for part in integers), np.concatenate([*scattered(said, coding)])


def _integers(values: Vector, terms: VectorTerms, share: float, draws: Draws) -> Iterator[Integers]:
    for start in range(0, values.size, CHUNK_VALUES):
        part = values[start : start + CHUNK_VALUES]
        yield quantise(part, terms.unit * terms.bound, terms.bound, draws(part.size), share)
