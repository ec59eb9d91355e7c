"""The worker's integers as they lie in the gate's own folder: read in chunks, checked against their bound.

They are read from the gate's copy, so that what is checked is what is masked or encrypted.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from protocol.errors import MaskingError
from protocol.secure_aggregation.ring import Words
from protocol.secure_aggregation.vector import VectorTerms, vector_terms
from protocol.study import StudySpec
from site_node.errors import GateError

CHUNK_BYTES = 1 << 20
REMEDY = "Nothing left. See the worker's log."


def terms_of(study: StudySpec, parameters: int) -> VectorTerms:
    """Return the vector of a study.

    Raises: GateError if the study has none.
    """
    try:
        return vector_terms(study, parameters)
    except MaskingError as error:
        raise GateError(str(error), REMEDY) from error


def integers_of(path: Path, terms: VectorTerms) -> Iterator[Words]:
    """Yield a file's integers as words of the ring, a chunk at a time."""
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            yield terms.ring.from_bytes(data)


def check_integers(path: Path, terms: VectorTerms) -> None:
    """Check number and bound of the integers that the worker handed over.

    Raises: GateError for another number, or one beyond the bound that keeps the sum in the ring.
    """
    if path.stat().st_size != terms.candidate_bytes:
        raise GateError("A vector is of another length than its study's.", REMEDY)
    for words in integers_of(path, terms):
        signed = terms.ring.decode(words)
        if int(np.abs(signed).max(initial=0)) > terms.bound:
            raise GateError(f"A vector holds a value beyond the study's bound of {terms.bound}.", REMEDY)
