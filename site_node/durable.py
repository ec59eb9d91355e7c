"""Files that are there whole or not at all, also after a power cut: written beside, synced, then renamed.

The processes of a site speak through folders; a reader that finds a file under its final name may trust its length.
Names beginning with a dot are unfinished and are ignored by every reader.

A simulation in one process says that power cuts do not matter to it (`kept_as`); nothing at a hospital does.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path

from protocol.digest import digest_of_bytes
from protocol.keeping import LASTING, Keeping

COPY_CHUNK_BYTES = 1 << 20
GROUP_READS = 0o640
BOOT = Path("/proc/sys/kernel/random/boot_id")
GROUP_WRITES = 0o2770  # a folder whose files the group takes away; they are of the folder's group
_KEEPING: ContextVar[Keeping] = ContextVar("keeping", default=LASTING)


def keeping() -> Keeping:
    """Return how files are kept here: lasting, unless a simulation said otherwise around this call."""
    return _KEEPING.get()


@contextlib.contextmanager
def kept_as(how: Keeping) -> Iterator[None]:
    """Keep files in this way within the block. For the simulator: a hospital's processes have no use for it."""
    before = _KEEPING.set(how)
    try:
        yield
    finally:
        _KEEPING.reset(before)


def boot_id() -> str | None:
    """Return the name of this machine's run, another after each start; None where the system has none (not Linux)."""
    try:
        return BOOT.read_text().strip() or None
    except OSError:
        return None


def write_durably(path: Path, data: bytes | memoryview, mode: int = GROUP_READS, *, synced: bool = True) -> None:
    """Write a file under its final name only once its bytes are on the disk.

    `synced` is False for what is checked by its digest before it is used, and made again if the power has failed.
    """
    unfinished = unfinished_beside(path)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask: the reader is of the folder's group
        file.write(data)
        file.flush()
        if synced:
            keeping().sync(file.fileno())
    unfinished.replace(path)
    sync_folder(path.parent)


def write_digested(path: Path, data: bytes | memoryview, *, synced: bool = True) -> str:
    """Write a file as `write_durably` does, digest it at the same time on another core, and return the digest."""
    with ThreadPoolExecutor(1) as other:
        digested = other.submit(digest_of_bytes, data)
        write_durably(path, data, synced=synced)
        digest = digested.result()
    keeping().note(path, digest)
    return digest


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file's bytes (never its inode) under the target's name once they are on the disk."""
    unfinished = unfinished_beside(target)
    with source.open("rb") as reader, unfinished.open("xb") as writer:
        os.fchmod(writer.fileno(), GROUP_READS)
        shutil.copyfileobj(reader, writer, COPY_CHUNK_BYTES)
        writer.flush()
        keeping().sync(writer.fileno())
    unfinished.replace(target)
    sync_folder(target.parent)


def read_up_to(path: Path, most: int) -> bytes | None:
    """Return a file's bytes, or None if it is missing; one byte more than `most` if it is longer than that."""
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except FileNotFoundError:
        return None


def unfinished_beside(path: Path) -> Path:
    """Return a new hidden name in the same folder, for what is not whole yet."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk."""
    if not keeping().synced:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def finished_files(folder: Path, suffix: str) -> Iterator[Path]:
    """Yield the folder's finished files with this ending, ordered by name; none if the folder is missing."""
    with contextlib.suppress(FileNotFoundError):
        names = sorted(n for n in os.listdir(folder) if n.endswith(suffix) and not n.startswith("."))  # noqa: PTH208 - names suffice
        yield from (folder / name for name in names)


def remove(path: Path) -> None:
    """Remove a file or a folder with its content; nothing if it is gone or is not ours to remove."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError, PermissionError):
        path.unlink()
