"""Versions that a power cut may have damaged: found when the agent starts again, and fetched anew.

A version's bytes are digested as they come, and the hub has them still. So they need not be on the disk before a job
begins, which a round would wait for: what the power takes is fetched again. The agent notes the run of the machine
(`boot_id`) in which versions came, on the disk before the first unsynced one. After another start it digests each
version once more, before it fetches anything or lets a job begin. Where a system does not name its runs (not Linux),
nothing is noted, and versions are synced as they come.
"""

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
    """
    if may_stay_unsynced(paths):
        return 0
    damaged = [path for path in finished_files(paths.blobs, "") if hex_of(digest_of_file(path)) != path.name]
    for path in damaged:
        _log.warning("version_damaged", what=path.name, next="it is fetched again when a task names it")
        remove(path)
    run = boot_id()
    if run is not None:
        write_durably(paths.agent / NOTE, run.encode())
    return len(damaged)


def may_stay_unsynced(paths: SitePaths) -> bool:
    """Tell whether a version that the power damages would be found: this very run of the machine is noted."""
    run = boot_id()
    return run is not None and read_up_to(paths.agent / NOTE, MAX_NOTE_BYTES) == run.encode()
