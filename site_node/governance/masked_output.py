"""The file that leaves under masks: the weight's digits and the worker's integers, masked, written whole.

It lies in the gate's own folder, named by digest; nothing is in the outbox before the masked vector is recorded as the
round's one output.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from protocol.secure_aggregation.masking import MaskStreams, SignedMask
from protocol.secure_aggregation.vector import VectorTerms, weight_digits
from site_node.governance import spool
from site_node.governance.vector_file import integers_of
from site_node.settings import SitePaths


def write_masked(
    paths: SitePaths, plain: Path, terms: VectorTerms, weight: int, masks: Sequence[SignedMask]
) -> tuple[str, int]:
    """Write the masked vector into the gate's folder and return its digest and size.

    Guarantee: memory is a chunk. The file is there whole or not at all; the plain file is left to the caller.
    """
    return spool.keep_stream(paths, _masked(plain, terms, weight, masks))


def _masked(plain: Path, terms: VectorTerms, weight: int, masks: Sequence[SignedMask]) -> Iterator[memoryview]:
    streams = MaskStreams(masks, terms.ring)
    for words in chain([weight_digits(weight, terms.ring)], integers_of(plain, terms)):
        masked = words.copy()
        streams.apply(masked)
        yield masked.data
