"""From the worker's integers to the masked vector: checked against their bound, masked, written whole.

Both files lie in the gate's own folder, named by digest. The integers are read from the gate's copy, so that what is
checked is what is masked; nothing is in the outbox before the masked vector is recorded as the round's one output.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from protocol.errors import MaskingError
from protocol.secure_aggregation.masking import MaskStreams, SignedMask
from protocol.secure_aggregation.ring import Words
from protocol.secure_aggregation.vector import VectorTerms, vector_terms, weight_digits
from protocol.study import StudySpec
from site_node.durable import remove, sync_folder, unfinished_beside
from site_node.errors import GateError
from site_node.governance import spool
from site_node.settings import SitePaths

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


def check_integers(path: Path, terms: VectorTerms) -> None:
    """Check number and bound of the integers that the worker handed over.

    Raises: GateError for another number, or one beyond the bound that keeps the sum in the ring.
    """
    if path.stat().st_size != terms.candidate_bytes:
        raise GateError("A vector is of another length than its study's.", REMEDY)
    for words in _chunks(path, terms):
        signed = terms.ring.decode(words)
        if int(np.abs(signed).max(initial=0)) > terms.bound:
            raise GateError(f"A vector holds a value beyond the study's bound of {terms.bound}.", REMEDY)


def write_masked(
    paths: SitePaths, plain: Path, terms: VectorTerms, weight: int, masks: Sequence[SignedMask]
) -> tuple[str, int]:
    """Write the masked vector into the gate's folder and return its digest and size.

    Guarantee: memory is a chunk. The file is there whole or not at all; the plain file is left to the caller.
    """
    streams, hasher = MaskStreams(masks, terms.ring), hashlib.sha256()
    unfinished = unfinished_beside(paths.gate_payloads / "masked")
    try:
        with unfinished.open("xb") as file:
            for words in chain([weight_digits(weight, terms.ring)], _chunks(plain, terms)):
                masked = words.copy()
                streams.apply(masked)
                hasher.update(masked.data)
                file.write(masked.data)
            file.flush()
            os.fsync(file.fileno())
        digest = "sha256:" + hasher.hexdigest()
        unfinished.replace(spool.kept_payload(paths, digest))
        sync_folder(paths.gate_payloads)
    finally:
        remove(unfinished)
    return digest, terms.payload_bytes


def _chunks(path: Path, terms: VectorTerms) -> Iterator[Words]:
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            yield terms.ring.from_bytes(data)
