"""Small disks that can be filled to the last byte: a tmpfs each, under folders of a hospital or of the hub. As root."""

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FILLER = ".filler"
BLOCK_BYTES = 4096


@dataclass(frozen=True)
class Disk:
    """One mounted tmpfs."""

    root: Path

    @classmethod
    def mount(cls, root: Path, megabytes: int) -> "Disk":
        """Make the folder and mount an empty disk of this size on it."""
        root.mkdir(parents=True, exist_ok=True)
        options = f"size={megabytes}m,mode=755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(root)], check=True)
        return cls(root)

    def unmount(self) -> None:
        """Take it away, even while somebody has a file open there."""
        subprocess.run(["umount", "--lazy", str(self.root)], check=False)

    @property
    def free_bytes(self) -> int:
        """Return what is left."""
        return shutil.disk_usage(self.root).free

    def fill(self, but_bytes: int = 0) -> None:
        """Leave no more room than this; calling it again takes what was freed meanwhile."""
        with (self.root / FILLER).open("ab") as file:
            left = self.free_bytes - but_bytes
            while left >= BLOCK_BYTES:
                with suppress(OSError):  # somebody was quicker
                    os.posix_fallocate(file.fileno(), file.tell(), left)
                file.seek(0, os.SEEK_END)
                left = min(self.free_bytes - but_bytes, left - BLOCK_BYTES)

    def make_room(self) -> None:
        """Give all of it back."""
        (self.root / FILLER).unlink(missing_ok=True)


def move_onto(disk: Disk, site: Path, *names: str) -> None:
    """Move folders of a hospital onto a disk, with a link where each was: files are renamed between some of them."""
    for name in names:
        shutil.move(site / name, disk.root / name)
        (site / name).symlink_to(disk.root / name)
