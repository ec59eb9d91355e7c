"""Weights from the hub: resumed where they broke off, checked by digest, and only then seen by anybody else."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from protocol.digest import digest_of_file, hex_of
from protocol.messages import ModelReference
from site_node.agent.hub_client import HubClient
from site_node.durable import finished_files, remove, sync_folder
from site_node.errors import BaseUnavailableError, DiskFullError, HubRefusedError, HubUnreachableError
from site_node.settings import SitePaths

KEPT_BLOBS = 4
MAXIMUM_BYTES = 16 << 30  # far above any permitted network; the policy's own limit is the gate's to apply
SPARE_BYTES = 256 << 20  # left free on the disk, for the ledgers
RANGE_NOT_SATISFIABLE = 416


def fetch_version(hub: HubClient, paths: SitePaths, version: ModelReference) -> bool:
    """Have a version's weights in inbox/blobs; tell whether they had to be fetched.

    Raises: HubUnreachableError if they cannot be had now; what has come is kept for the next attempt.
        BaseUnavailableError if they are larger than any network; DiskFullError if the disk has no room for them.
    """
    return fetch_blob(hub, paths, version.weights_digest, version.weights_bytes)


def fetch_blob(hub: HubClient, paths: SitePaths, digest: str, size: int) -> bool:
    """Have a blob of the hub in inbox/blobs; see `fetch_version`."""
    target = paths.blobs / hex_of(digest)
    if target.exists():
        return False
    partial = paths.partial / target.name
    if _size(partial) < size:
        _check_room(paths, size, size - _size(partial))
        _fetch_rest(hub, partial, digest, size)
    if _size(partial) != size or digest_of_file(partial) != digest:
        if _size(partial) >= size:
            remove(partial)
        raise HubUnreachableError("A version's weights came damaged or broke off.", "The agent asks again by itself.")
    partial.replace(target)
    sync_folder(target.parent)
    return True


def forget_old_blobs(paths: SitePaths, needed: Collection[str]) -> None:
    """Remove weights that no open task names, but for the few newest."""
    names = {hex_of(digest) for digest in needed}
    others = [path for path in finished_files(paths.blobs, "") if path.name not in names]
    others.sort(key=lambda path: path.stat().st_mtime)
    for path in others[:-KEPT_BLOBS]:
        remove(path)


def _check_room(paths: SitePaths, whole: int, rest: int) -> None:
    if whole > MAXIMUM_BYTES:
        problem = f"The hub names a version of {whole} bytes; an agent fetches at most {MAXIMUM_BYTES}."
        raise BaseUnavailableError(problem, "Ask its operator what this is.")
    free = shutil.disk_usage(paths.partial).free
    if rest + SPARE_BYTES > free:
        problem = f"A version needs {rest} bytes more, and {SPARE_BYTES} are to stay free; the disk has {free}."
        raise DiskFullError(problem, "Make room on the site's disk; the agent tries again by itself.")


def _fetch_rest(hub: HubClient, partial: Path, digest: str, size: int) -> None:
    try:
        with hub.blob(digest, _size(partial)) as (starts_at, pieces), partial.open("ab") as file:
            file.truncate(starts_at)
            left = size - starts_at
            for piece in pieces:
                file.write(piece[: max(left, 0)])
                left -= len(piece)
                if left < 0:
                    raise HubUnreachableError("The hub sends more than a version's size.", "Ask its operator.")
            file.flush()
            os.fsync(file.fileno())
    except HubRefusedError as error:
        if error.status == RANGE_NOT_SATISFIABLE:
            remove(partial)
        raise


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
