"""The version that travels as a difference: what sites hold follows the hub's weights by coded steps.

The hub keeps the weights as the strategy made them (`ServerState.weights`) and beside them what every site holds
(`ServerState.sent`). After each round it codes the difference between the two and adds what a site will decode:

    sent(n+1) = sent(n) + decoded(coded(weights(n+1) - sent(n)))

What coding loses is not lost: it is in weights - sent, and so in the next difference (error feedback at the hub). Sites
train from `sent`, which is also what is released and judged.
Source: Tang et al. 2019 (DoubleSqueeze), arXiv:1905.05957, Algorithm 1, with the residual as a difference of two files.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hub.aggregation.chunks import side_by_side
from hub.aggregation.strategy import DIFFERENCE, DIFFERENCE_BASE, SENT, ServerState
from hub.registry.blobs import BlobStore
from protocol.compression.coding import Values
from protocol.compression.differences import Description, difference_bytes, later_version
from protocol.compression.terms import download_steps
from protocol.manifest import Manifest
from protocol.study import StudySpec
from protocol.tensors import read_manifest


def sent_as_difference(
    study: StudySpec, number: int, before: ServerState, after: ServerState, blobs: BlobStore
) -> ServerState:
    """Store the difference to the new version, and the version that it leads to; without such steps change nothing.

    Guarantee: a function of study, number and states alone; called again, it stores the same blobs.
    Raises: CodecError if the weights are beyond what the steps can express.
    """
    if not download_steps(study).is_coded:
        return after
    paths = [blobs.path(after.weights), blobs.path(before.sent)]
    manifest = read_manifest(paths[1])
    description = Description(steps=study.transport.download, study_digest=study.digest, number=number)
    difference = blobs.put_stream(difference_bytes(_differences(paths, manifest), description, manifest))
    sent = blobs.put_stream(later_version(paths[1], blobs.path(difference)))
    return replace(after, blobs={**after.blobs, SENT: sent, DIFFERENCE: difference, DIFFERENCE_BASE: before.sent})


def _differences(paths: list[Path], manifest: Manifest) -> Iterator[Values]:
    for window in side_by_side(paths, manifest):
        yield window[0] - window[1]
