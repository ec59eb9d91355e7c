"""One object as it arrives: streamed into an unfinished file, bounded in size, and given up when the disk runs short.

A sender cannot be stopped in the middle of an object without ending its association, so what is given up is still
received, and thrown away.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from site_node.ingest.object_check import Announced

CHECK_SPACE_EVERY_BYTES = 16 << 20
OWNER_AND_GROUP = 0o640


class GivenUp(Enum):
    """Why an object's bytes were not kept."""

    NO_SPACE = "no-space"
    TOO_LARGE = "too-large"


@dataclass(frozen=True)
class Room:
    """How much may be written where. `free_bytes` looks at the disk itself; tests give another."""

    folder: Path
    min_free_bytes: int
    max_object_bytes: int
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free

    def is_short(self) -> bool:
        """Tell whether less is free than must stay free."""
        return self.free_bytes(self.folder) < self.min_free_bytes


class Intake:
    """A file that is being written: `write`, `file.flush`, `close` and `name` are what pynetdicom asks of it.

    `size` and `digest` are those of the object's own bytes, without the head.
    """

    def __init__(self, room: Room, announced: Announced | None, head: bytes) -> None:
        self.room = room
        self.announced = announced
        self.head_bytes = len(head)
        self.path = room.folder / f"{secrets.token_hex(16)}.part"
        self.size = 0
        self.given_up: GivenUp | None = None
        self.file = self
        self._unchecked = CHECK_SPACE_EVERY_BYTES  # the first write looks at the disk
        self._digest = hashlib.sha256()
        self._open: BinaryIO | None = None
        self._put(head, counted=False)

    @property
    def name(self) -> str:
        """Return the file's path."""
        return str(self.path)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the object's bytes so far, in hex."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Take the next bytes of the object; never raises for a full disk."""
        self.size += len(data)
        if self.given_up is None and self.size > self.room.max_object_bytes:
            self._give_up(GivenUp.TOO_LARGE)
        self._put(data, counted=True)

    def flush(self) -> None:
        """Do nothing: what matters is that the file is on the disk when it is finished."""

    def finish(self) -> None:
        """Put the whole file on the disk."""
        if self._open is None:
            return
        try:
            self._open.flush()
            os.fsync(self._open.fileno())
            self._open.close()
        except OSError:
            self._give_up(GivenUp.NO_SPACE)
        self._open = None

    def close(self) -> None:
        """Drop the file if it was not moved away; may be called again."""
        if self._open is not None:
            with suppress(OSError):
                self._open.close()
            self._open = None
        self.path.unlink(missing_ok=True)

    def _put(self, data: bytes, *, counted: bool) -> None:
        if self.given_up is not None:
            return
        self._unchecked += len(data)
        try:
            if self._unchecked >= CHECK_SPACE_EVERY_BYTES:
                self._unchecked = 0
                if self.room.is_short():
                    self._give_up(GivenUp.NO_SPACE)
                    return
            if self._open is None:
                mode = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                self._open = os.fdopen(os.open(self.path, mode, OWNER_AND_GROUP), "wb", buffering=1 << 20)
            self._open.write(data)
        except OSError:
            self._give_up(GivenUp.NO_SPACE)
            return
        if counted:
            self._digest.update(data)

    def _give_up(self, why: GivenUp) -> None:
        self.given_up = why
        self.close()
