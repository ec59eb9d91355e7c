"""The step `quantised`: the weighted difference as bounded integers, ready to be masked by the gate.

Each value is multiplied by the site's weight (at most 1), cut to the study's range and rounded by chance to a level.
The chance comes from the site's secret stream of this task, so that a training that is run again rounds the same way.
Source of the rounding: unbiased stochastic quantisation, as in Suresh et al. 2017, arXiv:1611.00429.
"""

from collections.abc import Callable, Iterator

import numpy as np
import structlog
from numpy.typing import NDArray

from protocol.manifest import manifest_of
from protocol.secure_aggregation.fixed_point import cut_fraction, quantise
from protocol.secure_aggregation.vector import VectorTerms, vector_terms
from protocol.study import StudySpec
from protocol.tensors import Weights, flatten

Draws = Callable[[int], NDArray[np.uint32]]
"""Gives so many uniform secret 32-bit numbers."""
CHUNK_VALUES = 1 << 20
TOLD_FRACTION = 0.01
_log = structlog.get_logger()


def quantised_bytes(study: StudySpec, difference: Weights, training_patients: int, draws: Draws) -> bytes:
    """Return the vector's words as the worker hands them over.

    Guarantee: every integer lies within the vector's bound; the same difference and draws give the same bytes.
    """
    manifest = manifest_of(difference)
    terms, values = vector_terms(study, manifest.parameters), flatten(difference, manifest)
    share = terms.share_of(training_patients)
    cut = cut_fraction(values, study.secure_aggregation.value_range, share)
    if cut > TOLD_FRACTION:
        _log.warning("values_cut", fraction=round(cut, 4), remedy="raise secure_aggregation.value_range")
    return b"".join(words.tobytes() for words in _words(values, terms, share, draws))


def _words(values: NDArray[np.float32], terms: VectorTerms, share: float, draws: Draws) -> Iterator[NDArray[np.int64]]:
    for start in range(0, values.size, CHUNK_VALUES):
        part = values[start : start + CHUNK_VALUES]
        yield terms.ring.encode(quantise(part, terms.unit * terms.bound, terms.bound, draws(part.size), share))
