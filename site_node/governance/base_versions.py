"""The version that a task starts from, as far as the gate reads it: its header, which says what an update must be."""

from pathlib import Path

from protocol.digest import hex_of
from protocol.errors import ProtocolError
from protocol.manifest import Manifest
from protocol.tensors import read_manifest
from site_node.errors import BaseNotHereError
from site_node.settings import SitePaths


def base_path(paths: SitePaths, digest: str) -> Path:
    """Return where the agent lays a version."""
    return paths.blobs / hex_of(digest)


def base_manifest(paths: SitePaths, digest: str) -> Manifest:
    """Return the manifest in a version's header.

    Raises: BaseNotHereError if the file is missing or has no such header. Versions are not synced: a power cut takes
        them, and the agent, which is started again too, fetches them anew.
    """
    try:
        return read_manifest(base_path(paths, digest))
    except (ProtocolError, OSError) as error:
        raise BaseNotHereError(
            f"The version {hex_of(digest)} is missing or damaged.",
            "After a start of the machine the agent fetches it again. Otherwise check the disk, remove that file from "
            "the inbox's `blobs`, and restart the agent.",
        ) from error
