"""Versions that a power cut may have damaged: found when the agent starts again, and fetched anew.

A version's bytes are digested as they come, and the hub has them still. So they need not be on the disk before a job
begins, which a round would wait for: what the power takes is fetched again. The agent notes the run of the machine
(`boot_id`) in which versions came, on the disk before the first unsynced one. After another start it digests each
version once more, before it fetches or starts anything, and again until nothing damaged is left. Where a system does
not name its runs (not Linux), nothing is noted, and versions are synced as they come.

A worker does not wait for this: a job that it begins by itself digests its version too, and answers `base-unavailable`.
"""

import errno
from contextlib import suppress
from pathlib import Path

import structlog

from protocol.digest import digest_of_file, hex_of
from site_node.durable import boot_id, finished_files, read_up_to, remove, write_durably
from site_node.settings import SitePaths

NOTE = "versions-came-in"
MAX_NOTE_BYTES = 200
_log = structlog.get_logger()


def check_versions(paths: SitePaths) -> int:
    """Remove the versions that are not what their names say, if the machine was started since they came.

    Returns: how many were removed. Afterwards versions may stay unsynced, until the next start of the machine.
    Raises: OSError if a damaged one cannot be removed, once all others were looked at; then call it again.
    """
    if may_stay_unsynced(paths):
        return 0
    damaged = [path for path in finished_files(paths.blobs, "") if not _is_whole(path)]
    for path in damaged:
        _log.warning("version_damaged", what=path.name, next="it is fetched again when a task names it")
        with suppress(OSError):
            remove(path)
    left = sorted({path.name for path in damaged} & {path.name for path in finished_files(paths.blobs, "")})
    if left:
        raise OSError(errno.EIO, f"damaged versions cannot be removed: {', '.join(left)}")
    _note_run(paths)
    return len(damaged)


def _is_whole(path: Path) -> bool:
    try:
        return hex_of(digest_of_file(path)) == path.name
    except OSError:  # what the disk cannot read is damaged; the hub has it still
        return False


def _note_run(paths: SitePaths) -> None:
    run = boot_id()
    if run is None:
        return
    try:
        write_durably(paths.agent / NOTE, run.encode())
    except OSError as error:  # a full disk, say: no reason not to carry
        _log.warning("run_not_noted", why=error.strerror, next="versions are synced as they come")


def may_stay_unsynced(paths: SitePaths) -> bool:
    """Tell whether a version that the power damages would be found: this very run of the machine is noted."""
    run = boot_id()
    return run is not None and read_up_to(paths.agent / NOTE, MAX_NOTE_BYTES) == run.encode()
