"""Room on the disks that the site writes to, whether its databases lie on a local one, and where the cache's key lies.

Source: SQLite, "Write-Ahead Logging", section "Overview": WAL does not work over a network's file system.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from site_node.doctor.finding import Finding, fine, problem, warning
from site_node.settings import SiteSettings

CHECK = "disk"
GIB = 1 << 30
NEEDED_BYTES, COMFORTABLE_BYTES = 1 * GIB, 10 * GIB
NEEDED_NAMES = 1000
NETWORKED = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "gpfs", "fuse.sshfs", "afs"})
MOUNTS = Path("/proc/self/mounts")
ROOM = "Make room, or move the folder to a larger disk; old imaging copies and logs are the usual reason."


@dataclass(frozen=True)
class Room:
    """What is left on a folder's disk; `names` is None where the file system does not count them."""

    free_bytes: int
    total_bytes: int
    names: int | None
    kind: str
    is_writable: bool


def examine(settings: SiteSettings) -> list[Finding]:
    """Look at each folder that the worker writes to."""
    paths = settings.paths
    mounts = kinds_of_mounts(MOUNTS.read_text(encoding="utf-8") if MOUNTS.exists() else "")
    folders = {"the site's folder": paths.root, "the worker's folder": paths.worker}
    seen: set[tuple[int, str]] = set()
    findings = []
    for name, folder in folders.items():
        try:
            room = room_of(folder, mounts)
        except OSError as error:
            findings.append(problem(CHECK, f"{folder} cannot be looked at: {error.strerror}.", "Is it mounted?"))
            continue
        key = (folder.stat().st_dev, name if folder == paths.worker else "")
        if key not in seen:
            findings.append(verdict_on_room(name, room, must_write=folder == paths.worker))
        seen.add(key)
    key_file = settings.cache_key or paths.cache_key
    return [*findings, verdict_on_cache_key(_device_of(paths.cache) == _device_of(key_file)), *_images(settings)]


def verdict_on_cache_key(is_beside: bool) -> Finding:
    """Say whether one disk holds the prepared images and the key that they are sealed with. Pure."""
    if is_beside:
        says = "Prepared images and the key that seals them lie on one file system: who takes the disk has both."
        remedy = (
            "Set cache_key in site.yaml to a place on a disk that forgets (/run/wardround/cache.key) or on another."
        )
        return warning("cache key", says, remedy)
    return fine("cache key", "The key that seals prepared images lies on another file system than they do.")


def verdict_on_room(name: str, room: Room, *, must_write: bool) -> Finding:
    """Say whether a folder's disk has room, may be written and is local. Pure."""
    left = f"{room.free_bytes / GIB:.1f} GiB of {room.total_bytes / GIB:.0f} GiB are free for {name}."
    if must_write and not room.is_writable:
        return problem(
            CHECK, f"This user may not write {name}.", "Check its owner and rights, and the mount's options."
        )
    if room.free_bytes < NEEDED_BYTES or (room.names is not None and room.names < NEEDED_NAMES):
        return problem(CHECK, f"Only {left}", ROOM)
    if must_write and room.kind in NETWORKED:
        remedy = "Keep SITE on a local disk; several machines share only what docs/operations.md names."
        return warning(CHECK, f"The databases in {name} lie on a network's file system ({room.kind}).", remedy)
    if room.free_bytes < COMFORTABLE_BYTES:
        return warning(CHECK, f"Only {left}", ROOM)
    return fine(CHECK, left)


def room_of(folder: Path, mounts: Mapping[str, str]) -> Room:
    """Ask the file system of a folder."""
    found = os.statvfs(folder)
    return Room(
        found.f_bavail * found.f_frsize,
        found.f_blocks * found.f_frsize,
        found.f_favail if found.f_files else None,
        kind_of(folder.resolve(), mounts),
        os.access(folder, os.W_OK),
    )


def kinds_of_mounts(text: str) -> dict[str, str]:
    r"""Return the kind of file system at each mount point of /proc/self/mounts.

    >>> kinds_of_mounts("disk / ext4 rw 0 0\nnas:/x /data/im\\040ages nfs4 rw 0 0\n")
    {'/': 'ext4', '/data/im ages': 'nfs4'}
    """
    rows = (line.split(" ") for line in text.splitlines())
    return {row[1].replace("\\040", " "): row[2] for row in rows if len(row) > 2}


def kind_of(folder: Path, mounts: Mapping[str, str]) -> str:
    """Return the kind of file system that a folder lies on: that of the nearest mount point above it. Pure."""
    return next((mounts[str(place)] for place in (folder, *folder.parents) if str(place) in mounts), "unknown")


def _device_of(place: Path) -> int:
    """Return the number of the file system that holds a place, or would."""
    there = next(one for one in (place, *place.absolute().parents) if one.exists())
    return there.stat().st_dev


def _images(settings: SiteSettings) -> list[Finding]:
    return [verdict_on_images({folder: os.access(folder, os.R_OK | os.X_OK) for folder in settings.images})]


def verdict_on_images(can_be_read: Mapping[Path, bool]) -> Finding:
    """Say whether the worker may read every folder of images. Pure."""
    closed = [str(folder) for folder, readable in can_be_read.items() if not readable]
    if closed:
        says = f"The worker cannot read {len(closed)} of {len(can_be_read)} folders of images: {', '.join(closed)}."
        return problem("images", says, "Are they mounted, and may the worker's user read them?")
    return fine("images", f"The worker can read all {len(can_be_read)} folders of images.")
