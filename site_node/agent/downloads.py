"""Weights from the hub: resumed where they broke off, checked by digest, and only then seen by anybody else.

A version whose earlier one is here comes as the difference between them, if the task names one: a file of its own,
resumed and checked in the same way, added here to the earlier version. What comes out must have the version's digest;
if it has not, or the earlier version is gone, the whole version is fetched.

What a power cut may take, versions and their differences, is not synced: the agent digests them once more when it
starts again (`after_power_cut.py`). Ciphertexts, which the gate reads, are.
"""

import hashlib
import shutil
from collections.abc import Collection
from pathlib import Path

import structlog

from protocol.compression.differences import later_version
from protocol.digest import digest_of_file, hex_of
from protocol.errors import ProtocolError
from protocol.keeping import left_behind
from protocol.messages import ModelReference, VersionDifference
from site_node.agent.after_power_cut import may_stay_unsynced
from site_node.agent.hub_client import Download, HubClient
from site_node.durable import finished_files, keeping, remove, sync_folder, unfinished_beside
from site_node.errors import BaseUnavailableError, DiskFullError, HubRefusedError, HubUnreachableError
from site_node.settings import SitePaths

KEPT_BLOBS = 4
MAXIMUM_BYTES = 16 << 30  # far above any permitted network; the policy's own limit is the gate's to apply
SPARE_BYTES = 256 << 20  # left free on the disk, for the ledgers
RANGE_NOT_SATISFIABLE = 416
_log = structlog.get_logger()


def fetch_version(
    hub: HubClient, paths: SitePaths, version: ModelReference, difference: VersionDifference | None = None
) -> bool:
    """Have a version's weights in inbox/blobs; tell whether they had to be fetched.

    Raises: HubUnreachableError if they cannot be had now; what has come is kept for the next attempt.
        BaseUnavailableError if they are larger than any network; DiskFullError if the disk has no room for them.
    """
    digest, size = version.weights_digest, version.weights_bytes
    synced = not may_stay_unsynced(paths)
    if difference is not None and _holds(paths, difference.from_digest) and not _holds(paths, digest):
        _check_room(paths, size, size + difference.bytes)
        if _fetched(hub, paths, difference, synced) and _add_difference(paths, difference, digest, synced):
            return True
        _log.warning("difference_not_usable", version=version.number, next="the whole version is fetched")
    return fetch_blob(hub, paths, digest, size, synced=synced)


def fetch_blob(hub: HubClient, paths: SitePaths, digest: str, size: int, *, synced: bool = True) -> bool:
    """Have a blob of the hub in inbox/blobs; see `fetch_version`."""
    target = paths.blobs / hex_of(digest)
    if target.exists():
        return False
    partial = paths.partial / target.name
    if _size(partial) < size:
        _check_room(paths, size, size - _size(partial))
        found = _fetch_rest(hub, partial, digest, size, synced)
    else:
        found = digest_of_file(partial)
    if _size(partial) != size or found != digest:
        if _size(partial) >= size:
            remove(partial)
        raise HubUnreachableError("A version's weights came damaged or broke off.", "The agent asks again by itself.")
    partial.replace(target)
    if synced:
        sync_folder(target.parent)
    return True


def forget_old_blobs(paths: SitePaths, needed: Collection[str]) -> None:
    """Remove weights that no open task names, but for the few newest."""
    names = {hex_of(digest) for digest in needed}
    others = [path for path in finished_files(paths.blobs, "") if path.name not in names]
    others.sort(key=lambda path: path.stat().st_mtime)
    for path in others[:-KEPT_BLOBS]:
        remove(path)


def forget_unfinished(paths: SitePaths, now: float) -> int:
    """Remove versions that a killed agent was adding up, a day later; return how many. Downloads stay: they go on."""
    left = [path for path in left_behind(paths.partial, now) if path.name.startswith(".")]
    for path in left:
        remove(path)
    return len(left)


def _fetched(hub: HubClient, paths: SitePaths, difference: VersionDifference, synced: bool) -> bool:
    try:
        fetch_blob(hub, paths, difference.blob, difference.bytes, synced=synced)
    except HubRefusedError:
        return False
    return True


def _add_difference(paths: SitePaths, difference: VersionDifference, digest: str, synced: bool) -> bool:
    base, file = paths.blobs / hex_of(difference.from_digest), paths.blobs / hex_of(difference.blob)
    target = paths.blobs / hex_of(digest)
    unfinished, hasher = unfinished_beside(paths.partial / target.name), hashlib.sha256()
    try:
        with unfinished.open("xb") as sink:
            for data in later_version(base, file):
                hasher.update(data)
                sink.write(data)
            sink.flush()
            if synced:
                keeping().sync(sink.fileno())
        if "sha256:" + hasher.hexdigest() != digest:
            return False
        keeping().note(unfinished, digest)
        unfinished.replace(target)
        if synced:
            sync_folder(target.parent)
    except ProtocolError:
        return False
    finally:
        remove(unfinished)
        remove(file)  # it has done its work, and would drive earlier versions out
    return True


def _holds(paths: SitePaths, digest: str) -> bool:
    return (paths.blobs / hex_of(digest)).exists()


def _check_room(paths: SitePaths, whole: int, rest: int) -> None:
    if whole > MAXIMUM_BYTES:
        problem = f"The hub names a version of {whole} bytes; an agent fetches at most {MAXIMUM_BYTES}."
        raise BaseUnavailableError(problem, "Ask its operator what this is.")
    free = shutil.disk_usage(paths.partial).free
    if rest + SPARE_BYTES > free:
        problem = f"A version needs {rest} bytes more, and {SPARE_BYTES} are to stay free; the disk has {free}."
        raise DiskFullError(problem, "Make room on the site's disk; the agent tries again by itself.")


def _fetch_rest(hub: HubClient, partial: Path, digest: str, size: int, synced: bool) -> str:
    """Append what is missing, digested as it comes, and return the digest of the whole file."""
    try:
        with hub.blob(digest, _size(partial)) as blob:
            # Of the right size only: what stays partial is appended to, and a linked file is the hub's own.
            if blob.file is not None and _size(blob.file) == size and keeping().linked(blob.file, partial, digest):
                return digest
            return _append(partial, blob, size, synced)
    except HubRefusedError as error:
        if error.status == RANGE_NOT_SATISFIABLE:
            remove(partial)
        raise


def _append(partial: Path, blob: Download, size: int, synced: bool) -> str:
    with partial.open("a+b") as file:
        file.truncate(blob.starts_at)
        file.seek(0)
        hasher = hashlib.file_digest(file, "sha256")
        left = size - blob.starts_at
        for piece in blob.pieces:
            hasher.update(piece)
            file.write(piece[: max(left, 0)])
            left -= len(piece)
            if left < 0:
                raise HubUnreachableError("The hub sends more than a version's size.", "Ask its operator.")
        file.flush()
        if synced:
            keeping().sync(file.fileno())
    digest = "sha256:" + hasher.hexdigest()
    keeping().note(partial, digest)
    return digest


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
