"""Writing a backup: read in order, sealed while it is read, read back whole, and only then given its name."""

import hashlib
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from protocol.digest import canonical_json
from site_node.backup.contents import DATABASE, Item, as_of_now, items
from site_node.backup.inventory import NAME, Entry, Head, Inventory, heads_of
from site_node.backup.reading import read_backup
from site_node.backup.sealed_file import SealedWriter, Secret
from site_node.durable import sync_folder, unfinished_beside
from site_node.errors import BackupError
from site_node.governance.masking_records import end_masked_rounds
from site_node.settings import SitePaths, SiteSettings

PRIVATE = 0o600
SUFFIX = ".wardround-backup"
Told = Callable[[str], object]


@dataclass(frozen=True)
class Written:
    """A backup that was written and read back."""

    path: Path
    inventory: Inventory


def write_backup(
    settings: SiteSettings, target: Path, secret: Secret, *, local_state: bool = False, told: Told = lambda _: None
) -> Written:
    """Write a backup of a site to a file, or under a name of its own into a folder.

    Guarantee: the file appears under its name only once it is whole, on the disk, and was read back and compared; its
        ledgers hold every byte that had left when the gate's database was read. Memory: a mebibyte or two at a time,
        and scrypt's 128.
    Raises: BackupError if the target is there already or lies within the site, or reading back finds a difference.
    """
    path = _target(settings, target)
    unfinished = unfinished_beside(path)
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb") as file:
            inventory = _write(settings, file, secret, local_state=local_state, told=told)
            file.flush()
            os.fsync(file.fileno())
        told("reading it back")
        with unfinished.open("rb") as file:
            if read_backup(file, secret) != inventory:
                raise BackupError("What was written reads back as something else.", "Try another disk.")
        unfinished.rename(path)
        sync_folder(path.parent)
    except PermissionError as error:
        raise BackupError(f"{error.filename or path} is closed to this user.", "Run the backup as root.") from None
    except OSError as error:
        raise BackupError(f"The backup cannot be written: {error.strerror}.", "Make room, or check rights.") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return Written(path, inventory)


def _target(settings: SiteSettings, target: Path) -> Path:
    if target.is_dir():
        target = target / f"{settings.name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}{SUFFIX}"
    if target.exists():
        raise BackupError(f"{target} is there already.", "Name a new file, or a folder.")
    if not target.parent.is_dir():
        raise BackupError(f"There is no folder {target.parent}.", "Make it, or mount it.")
    if target.resolve().is_relative_to(settings.paths.root):
        raise BackupError("The backup would lie within the site itself.", "Name a place on another disk.")
    return target


def _write(settings: SiteSettings, file: BinaryIO, secret: Secret, *, local_state: bool, told: Told) -> Inventory:
    paths, entries, heads = settings.paths, list[Entry](), (Head(), Head())
    writer = SealedWriter(file, secret)
    with tarfile.open(fileobj=writer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for item in items(paths, local_state=local_state):
            told(item.name)
            with suppress(FileNotFoundError), _opened(paths, item) as source:  # what is gone was not to be kept
                if item.name == DATABASE:
                    heads = heads_of(source)
                entries.append(_add(archive, item, source, paths.root / item.name))
        ledger, egress = heads
        made_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        inventory = Inventory(site=settings.name, made_at=made_at, ledger=ledger, egress=egress, files=entries)
        data = canonical_json(inventory.model_dump(mode="json", by_alias=True))
        archive.addfile(_described(NAME, len(data), PRIVATE), BytesIO(data))
    writer.finish()
    return inventory


@contextmanager
def _opened(paths: SitePaths, item: Item) -> Iterator[Path]:
    path = paths.root / item.name
    if not item.is_database:
        yield path
        return
    if not path.exists():
        raise FileNotFoundError(path)
    with as_of_now(path) as copy:
        if item.name == DATABASE:
            end_masked_rounds(copy)
        yield copy


def _add(archive: tarfile.TarFile, item: Item, source: Path, original: Path) -> Entry:
    mode = original.stat().st_mode & 0o777
    with source.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digesting = _Digesting(file, size)
        archive.addfile(_described(item.name, size, mode), digesting)
    return Entry(name=item.name, bytes=size, digest=f"sha256:{digesting.sha256.hexdigest()}", mode=mode)


def _described(name: str, size: int, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, mode, int(time.time())
    return info


class _Digesting:
    """A file of a length that was promised, digested as it is read; what grew meanwhile is cut there."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.sha256: Any = hashlib.sha256()
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        self.sha256.update(data)
        return data
