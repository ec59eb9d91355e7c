"""Reading a backup through: each file handed on in pieces, and none believed until the inventory at the end agrees."""

import hashlib
import tarfile
from collections.abc import Callable
from typing import Any, BinaryIO

from pydantic import ValidationError

from protocol.digest import parse_json
from protocol.errors import DigestError
from site_node.backup.contents import is_allowed
from site_node.backup.inventory import MAX_BYTES, NAME, Entry, Inventory
from site_node.backup.sealed_file import ANOTHER, DAMAGED, SealedReader, Secret
from site_node.errors import BackupError

PIECE_BYTES = 1 << 20
Keep = Callable[[str, int, Callable[[int], bytes]], None]
"""Is given each file's name, its mode, and a way to read it in pieces, to its end."""


def read_backup(file: BinaryIO, secret: Secret, keep: Keep | None = None) -> Inventory:
    """Read a backup to its end and return its inventory.

    Guarantee: what `keep` was given is what the inventory says, if this returns. Names lie within a site's folder.
    Raises: BackupError if anything is missing, too much, or another.
    """
    found: list[Entry] = []
    reader, inventory = SealedReader(file, secret), None
    try:
        with tarfile.open(fileobj=reader, mode="r|") as archive:
            for member in archive:
                source = archive.extractfile(member)
                if inventory is not None or not member.isreg() or source is None:
                    raise BackupError(DAMAGED, ANOTHER)
                if member.name == NAME:
                    inventory = _inventory(source.read(MAX_BYTES))
                elif not is_allowed(member.name):
                    raise BackupError("The backup holds a file that is none of a site's.", ANOTHER)
                else:
                    found.append(_read_one(member, source, keep))
        while reader.read(PIECE_BYTES):  # to the seal of the last piece
            pass
    except tarfile.TarError:
        raise BackupError(DAMAGED, ANOTHER) from None
    if inventory is None or inventory.files != found:
        raise BackupError(DAMAGED, ANOTHER)
    return inventory


def _inventory(data: bytes) -> Inventory:
    try:
        return Inventory.model_validate(parse_json(data))
    except (DigestError, ValidationError):
        raise BackupError("The backup was written by another version.", "Restore it with that version.") from None


def _read_one(member: tarfile.TarInfo, source: Any, keep: Keep | None) -> Entry:
    sha256, size = hashlib.sha256(), 0

    def pieces(most: int) -> bytes:
        nonlocal size
        data: bytes = source.read(most)
        sha256.update(data)
        size += len(data)
        return data

    mode = member.mode & 0o777
    if keep is not None:
        keep(member.name, mode, pieces)
    while pieces(PIECE_BYTES):
        pass
    return Entry(name=member.name, bytes=size, digest=f"sha256:{sha256.hexdigest()}", mode=mode)
