"""Where received objects lie: each whole, under a name that says nothing of a patient, and never overwritten.

The name is a digest of the SOP instance UID, so the same instance always has the same place: sent again it is compared,
not stored twice, and storage commitment finds it by name. The file's head (preamble and file meta information, PS3.10
section 7.1) is ours and follows from how the object was announced; the bytes behind it are those that came.
"""

import errno
import hashlib
import struct
import threading
from enum import Enum
from io import BytesIO
from pathlib import Path

from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from site_node.durable import copy_durably, sync_folder, unfinished_beside
from site_node.ingest.object_check import Announced

IMPLEMENTATION_UID = UID("2.25.125620280498411602064309145031046567328")  # ours, made once from a UUID
IMPLEMENTATION_VERSION = "WARDROUND_0"
NAME_DIGITS = 40
COMPARE_CHUNK_BYTES = 1 << 20
PREAMBLE = b"\0" * 128 + b"DICM"
GROUP_LENGTH_END = len(PREAMBLE) + 12


class Kept(Enum):
    """What became of an object that was to be kept."""

    STORED = "stored"
    REPEATED = "repeated"
    OTHER_BYTES = "other-bytes"
    OTHER_SYNTAX = "other-syntax"


def head_of(announced: Announced) -> bytes:
    """Return the head of a received file: preamble, `DICM` and file meta information."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = announced.class_uid
    meta.MediaStorageSOPInstanceUID = announced.instance_uid
    meta.TransferSyntaxUID = announced.syntax
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    written = BytesIO()
    write_file_meta_info(written, meta, enforce_standard=True)
    return PREAMBLE + written.getvalue()


class ReceivedImages:
    """The folder that the index reads. Safe for several threads and, on disks that know links, several processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def path_of(self, instance_uid: str) -> Path:
        """Return where this instance lies, or would."""
        digest = hashlib.sha256(instance_uid.encode()).hexdigest()[:NAME_DIGITS]
        return self.folder / digest[:2] / f"{digest}.dcm"

    def class_of(self, instance_uid: str) -> str | None:
        """Return the SOP class of an instance that is kept here, or None if it is not."""
        path = self.path_of(instance_uid)
        if not path.is_file():
            return None
        return str(read_file_meta_info(path).MediaStorageSOPClassUID)

    def keep(self, finished: Path, announced: Announced) -> Kept:
        """Move a finished and synced file to its place.

        Guarantee: what is there already is never changed; when this returns, the instance's name is on the disk.
        Raises: OSError, with the file still where it was.
        """
        path = self.path_of(announced.instance_uid)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self._place(finished, path):
            return _compare(path, finished, announced)
        sync_folder(path.parent)
        sync_folder(self.folder)
        return Kept.STORED

    def _place(self, source: Path, target: Path) -> bool:
        """Move a file to a name that nobody has; False if somebody has it, be it another process."""
        try:
            target.hardlink_to(source)  # unlike a rename it never replaces
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno == errno.EXDEV:
                return self._place_from_another_disk(source, target)
            return self._place_without_links(source, target)
        source.unlink()
        return True

    def _place_from_another_disk(self, source: Path, target: Path) -> bool:
        copy = unfinished_beside(target)
        try:
            copy_durably(source, copy)
            placed = self._place(copy, target)
        finally:
            copy.unlink(missing_ok=True)
        if placed:
            source.unlink()
        return placed

    def _place_without_links(self, source: Path, target: Path) -> bool:
        with self._lock:
            if target.exists():
                return False
            source.rename(target)
            return True


def _compare(there: Path, came: Path, announced: Announced) -> Kept:
    if str(read_file_meta_info(there).TransferSyntaxUID) != announced.syntax:
        return Kept.OTHER_SYNTAX
    with there.open("rb") as one, came.open("rb") as other:
        for file in (one, other):
            file.seek(GROUP_LENGTH_END - 4)
            (rest,) = struct.unpack("<I", file.read(4))
            file.seek(GROUP_LENGTH_END + rest)
        while True:
            first, second = one.read(COMPARE_CHUNK_BYTES), other.read(COMPARE_CHUNK_BYTES)
            if first != second:
                return Kept.OTHER_BYTES
            if not first:
                return Kept.REPEATED
