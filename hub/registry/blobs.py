"""Content-addressed files: a blob's name is the digest of its bytes, so a name never changes its meaning.

Layout: `<root>/ab/<64 hexadecimal digits>`. Bytes are written under a temporary name, synced, renamed, and the folder
synced, so that after a crash a blob is there whole or not at all. Storing the same bytes again changes nothing.
"""

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from hub.errors import BlobError, NotFoundError
from protocol.digest import digest_of_file, hex_of
from protocol.keeping import LASTING, Keeping, left_behind

CHUNK_BYTES = 1 << 20
INCOMING = "incoming"


@dataclass(frozen=True)
class BlobStore:
    """A folder of blobs."""

    root: Path
    keeping: Keeping = LASTING

    def path(self, digest: str) -> Path:
        """Return where a blob lies or would lie.

        Raises: DigestError if the text is not a digest.
        """
        name = hex_of(digest)
        return self.root / name[:2] / name

    def contains(self, digest: str) -> bool:
        """Tell whether the blob is there."""
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """Return the blob's size in bytes.

        Raises: NotFoundError if it is not there.
        """
        return self._existing(digest).stat().st_size

    def put(self, data: bytes) -> str:
        """Store bytes and return their digest."""
        return self.put_stream([data])

    def put_stream(self, chunks: Iterable[bytes], expected: str | None = None) -> str:
        """Store bytes that come in chunks and return their digest.

        Guarantee: nothing is stored unless all chunks came and, where a digest was expected, they have it.
        Raises: BlobError if they have another digest.
        """
        return self._kept(([chunk] for chunk in chunks), [expected])[0]

    def put_side_by_side(self, rows: Iterable[Sequence[bytes]], count: int) -> list[str]:
        """Store so many blobs, whose bytes come as rows of one piece for each, and return their digests.

        Guarantee: nothing is stored unless all rows came.
        """
        return self._kept(rows, [None] * count)

    def adopt(self, path: Path, expected: str | None = None) -> str:
        """Move a finished file on the same disk into the store and return its digest.

        Raises: BlobError if it has another digest than expected; the file then stays where it is.
        """
        digest = digest_of_file(path)
        _expect(digest, expected)
        self.keep(path, digest)
        path.unlink(missing_ok=True)
        return digest

    def keep(self, path: Path, digest: str) -> None:
        """Take a finished file on the same disk, digested while it was written, into the store; it keeps its name too.

        Whoever calls removes that name once it is not needed, and writes to the file no more.
        """
        with path.open("rb") as file:
            self.keeping.sync(file.fileno())
        self.keeping.note(path, digest)
        temporary = self._temporary()
        try:
            temporary.hardlink_to(path)
        except OSError:  # a disk without links
            path.replace(temporary)
        self._keep(temporary, digest)

    def read(self, digest: str) -> bytes:
        """Return all bytes of a blob and check them against its name.

        Raises: NotFoundError if it is not there, BlobError if the disk changed it.
        """
        data = self._existing(digest).read_bytes()
        _expect("sha256:" + hashlib.sha256(data).hexdigest(), digest)
        return data

    def read_range(self, digest: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from start (inclusive) to end (exclusive), in chunks."""
        with self._existing(digest).open("rb") as file:
            file.seek(start)
            left = end - start
            while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk

    def will_rest(self, digest: str) -> None:
        """Say that a blob is hardly read again, so that its bytes need not stay in memory; what reads it finds it.

        What sites send would else fill a machine's memory with a model for each site and round.
        Source: Linux manual, posix_fadvise(2).
        """
        if self.keeping.synced and hasattr(os, "posix_fadvise"):
            with suppress(OSError), self.path(digest).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def remove_left_behind(self, now: float) -> int:
        """Remove what killed processes did not finish, a day after they last wrote to it; return how many files.

        `now` is in seconds since the epoch. Other processes of the hub go on writing meanwhile.
        """
        removed = 0
        for path in left_behind(self.root / INCOMING, now):
            with suppress(OSError):  # it costs room; the next start tries again
                path.unlink()
                removed += 1
        return removed

    def _existing(self, digest: str) -> Path:
        path = self.path(digest)
        if not path.is_file():
            raise NotFoundError("There is no blob of this digest.", "Ask for a digest that a task or version names.")
        return path

    def _kept(self, rows: Iterable[Sequence[bytes]], expected: Sequence[str | None]) -> list[str]:
        parts = [_Part(self._temporary()) for _ in expected]
        try:
            with ExitStack() as stack:
                files = [stack.enter_context(part.path.open("xb", buffering=0)) for part in parts]
                # A row is digested and written while the next one is computed: on another core, one row ahead.
                other, taken = stack.enter_context(ThreadPoolExecutor(1)), Future[None]()
                taken.set_result(None)
                for row in rows:
                    taken.result()
                    taken = other.submit(self._take, parts, files, row)
                taken.result()
                for file in files:
                    self.keeping.sync(file.fileno())
            for part, digest in zip(parts, expected, strict=True):
                _expect(part.digest, digest)
            for part in parts:
                self.keeping.note(part.path, part.digest)
                self._keep(part.path, part.digest)
        finally:
            for part in parts:
                part.path.unlink(missing_ok=True)
        return [part.digest for part in parts]

    def _take(self, parts: Sequence["_Part"], files: Sequence[BinaryIO], row: Sequence[bytes]) -> None:
        for part, file, piece in zip(parts, files, row, strict=True):
            left, before = memoryview(piece), file.tell()
            while left:
                left = left[file.write(left) :]
            self.keeping.begin_to_sync(file.fileno(), before, before + len(piece))
            part.hasher.update(piece)

    def _temporary(self) -> Path:
        folder = self.root / INCOMING
        folder.mkdir(parents=True, exist_ok=True)
        return folder / secrets.token_hex(16)

    def _keep(self, temporary: Path, digest: str) -> None:
        target = self.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(target)
        temporary.unlink(missing_ok=True)  # two names of one file: replacing one by the other does nothing
        if self.keeping.synced:
            for folder in (target.parent, self.root):
                _sync_folder(folder)


@dataclass(frozen=True)
class _Part:
    """A blob that is being written."""

    path: Path
    hasher: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @property
    def digest(self) -> str:
        return "sha256:" + self.hasher.hexdigest()


def _expect(digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        raise BlobError("The bytes do not have the digest that was announced.", "Send the file again from its start.")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
