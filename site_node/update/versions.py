"""Versions as the agent laid them into the inbox, read for a job."""

import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocol.digest import digest_of_bytes, hex_of
from protocol.errors import TensorError
from protocol.tensors import Weights, weights_over
from site_node.durable import keeping
from site_node.errors import BaseUnavailableError, OrderError
from site_node.settings import SitePaths


def read_version(paths: SitePaths, digest: str | None) -> Weights:
    """Return the weights that an order names, their bytes checked against the digest.

    Raises: OrderError if the order names none; BaseUnavailableError if they are missing or damaged.
    """
    if digest is None:
        raise OrderError("The order names no version to start from.", "The gate refuses such a task.")
    try:
        path = paths.blobs / hex_of(digest)
        if keeping().knows(path, digest):
            return weights_over(_mapped(path))
        data = np.fromfile(path, np.uint8)
        if digest_of_bytes(data.data) != digest:
            raise TensorError("other bytes than its digest says")
        return weights_over(data)
    except (OSError, TensorError, ValueError):  # ValueError: an empty file cannot be mapped
        raise BaseUnavailableError(
            f"The version to start from, {hex_of(digest)}, is missing or damaged.",
            "After a start of the machine the agent fetches it again. Otherwise check the disk, remove that file from "
            "the inbox's `blobs`, and restart the agent.",
        ) from None


def _mapped(path: Path) -> NDArray[np.uint8]:
    """Return a file's bytes without a copy; what is written to them stays here. For a file that nobody changes."""
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
