"""Weights that come from outside, as of a MONAI Bundle: checked, kept as a blob, and named in the audit log.

A study may name their digest to start from (`start.weights`), and hospitals approve that digest. The hub knows no
network: whether names and shapes are the study's, every hospital checks before it trains.
"""

from pathlib import Path

import numpy as np

from hub.audit.log import append
from hub.errors import RequestError
from hub.services import Services
from hub.storage import stores
from hub.storage.tables import GivenWeightsRow
from protocol.digest import Digest
from protocol.errors import TensorError
from protocol.tensors import decode_weights, read_manifest

MOST_WEIGHTS_BYTES = 1 << 30


def give_weights(services: Services, path: Path, actor: str) -> Digest:
    """Take a weights file in and return its digest; one that is known is left as it is.

    Raises: RequestError if it is no weights file of ours, too large, or not of finite numbers.
    """
    if path.stat().st_size > MOST_WEIGHTS_BYTES:
        raise RequestError(f"The weights have more than {MOST_WEIGHTS_BYTES} bytes.", "No network here is so large.")
    try:
        manifest, weights = read_manifest(path), decode_weights(path)
    except TensorError as error:
        raise RequestError(f"{path.name} holds no weights: {error}", "`wardround bundle import` writes them.") from None
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise RequestError("The weights are not all finite numbers.", "Take another version of them.")
    with path.open("rb") as file:
        digest = services.blobs.put_stream(iter(lambda: file.read(1 << 20), b""))
    with services.transaction() as session:
        if stores.given_weights(session, digest) is None:
            size, now = manifest.payload_bytes, services.clock()
            row = GivenWeightsRow(
                digest=digest, manifest_digest=manifest.digest, weights_bytes=size, given_by=actor, given_at=now
            )
            session.add(row)
            details = {"manifest_digest": manifest.digest, "weights_bytes": size}
            append(session, now, actor, "weights.given", digest, details)
    return digest
