"""Payloads in transfer: the bytes lie in a file, the checks run along in memory; a process may die at any byte.

The file's size is the only truth about how far a transfer has come, so that a killed hub goes on at the last byte; the
running checks are a cache: if they are missing or behind, they are made again from the file. Whoever appends to it or
settles it holds the file's lock, which the kernel gives to one request of one process and takes back when that dies.
"""

import fcntl
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import IOBase
from pathlib import Path

from hub.aggregation.admission import Admitted, Terms, UpdateCheck
from hub.aggregation.opening import Bytes, Sink
from hub.errors import StateError
from protocol.keeping import LASTING, Keeping

REPLAY_BYTES = 1 << 20
UNCHANGED = frozenset({"difference", "weights", "gradient", "quantised", "skellam", "masked", "encrypted", "decrypted"})
"""Steps that say what the values are, and leave the bytes as they come."""
MOST_OPEN_TRANSFERS = 256


class Transfer:
    """One payload on its way: `<id>` holds its bytes as they came, `<id>.plain` what they open to, if that differs."""

    def __init__(self, folder: Path, upload_id: str, terms: Terms, keeping: Keeping = LASTING) -> None:
        self.path = folder / upload_id
        self.plain_path = self.path if travels_as_it_is(terms) else folder / f"{upload_id}.plain"
        self.terms = terms
        self.lock = threading.Lock()
        self._keeping = keeping
        self._given = folder / f"{upload_id}.given"
        self._plain: Sink | None = None
        self._check: UpdateCheck | None = None

    @property
    def received_bytes(self) -> int:
        """Return how far the transfer has come."""
        return size_of(self.path)

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the transfer against every other request, of this process or another.

        Raises: StateError if another request holds it.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StateError("Another request is at this transfer.", "Ask for the offset and go on.") from error
            yield
        finally:
            os.close(descriptor)

    def append(self, offset: int, data: Bytes) -> int:
        """Check and keep the next bytes; return the new offset.

        The caller holds `lock` and the claim. Bytes are kept before they are checked, so that checks can be made
        again at any time; but never more than were announced: the whole file may be a blob's already.
        Raises: StateError if the offset is not where the transfer stands; AdmissionError if the bytes are refused.
        """
        if offset != self.received_bytes:
            raise StateError(
                f"The transfer stands at byte {self.received_bytes}, not {offset}.",
                "Ask for its offset and go on there.",
            )
        check = self._running()
        room = self.terms.payload_bytes - offset
        with self.path.open("ab") as file:
            kept = file.write(memoryview(data)[: max(0, room)])
            file.flush()
            self._keeping.begin_to_sync(file.fileno(), offset, offset + kept)  # it is synced once it is whole
        check.write(data)
        return offset + len(data)

    def take(self, file: Path, keeping: Keeping) -> bool:
        """Check a whole file whose digest this process knows, under a second name; False if it cannot have one.

        The caller holds `lock` and the claim. All checks are made but the digest's, which is known.
        Raises: AdmissionError if the payload is refused.
        """
        self._given.unlink(missing_ok=True)
        if not keeping.linked(file, self._given, self.terms.payload_digest):
            return False
        as_it_is = self.plain_path == self.path
        self._close_plain()
        self._plain = _Nowhere() if as_it_is else self.plain_path.open("wb")
        check = UpdateCheck(self.terms, self._plain, is_known=True)
        _feed(check, self._given)
        self.path = self._given
        self.plain_path = self._given if as_it_is else self.plain_path
        self._check = check
        return True

    def finish(self) -> Admitted:
        """Return the verdict on the whole payload, opened into `plain_path`; the caller holds `lock` and the claim.

        Raises: AdmissionError if it is refused.
        """
        admitted = self._running().finish()
        self._close_plain()
        return admitted

    def pause(self) -> None:
        """Close the file of opened bytes and forget the checks; they are made again if the transfer goes on."""
        with self.lock:
            self._close_plain()
            self._check = None

    def _running(self) -> UpdateCheck:
        if self._check is None or self._plain is None or self._check.received_bytes != self.received_bytes:
            self._check = self._replayed()
        return self._check

    def _close_plain(self) -> None:
        if isinstance(self._plain, IOBase):
            self._plain.close()
        self._plain = None

    def _replayed(self) -> UpdateCheck:
        self._close_plain()
        self._plain = _Nowhere() if self.plain_path == self.path else self.plain_path.open("wb")
        check = UpdateCheck(self.terms, self._plain)
        with suppress(FileNotFoundError):
            _feed(check, self.path)
        return check


def _feed(check: UpdateCheck, path: Path) -> None:
    piece = memoryview(bytearray(REPLAY_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            check.write(piece[:count])


class _Nowhere:
    """Takes what is kept elsewhere already."""

    def write(self, data: Bytes, /) -> int:
        return len(data)


def travels_as_it_is(terms: Terms) -> bool:
    """Tell whether the bytes that come are the bytes that are stored: no step has to be undone at their arrival."""
    return terms.coding is None and UNCHANGED.issuperset(terms.steps)


class Transfers:
    """The transfers that this process works on; the oldest are forgotten, which costs a replay and nothing else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, Transfer] = OrderedDict()

    def get(self, folder: Path, upload_id: str) -> Transfer | None:
        """Return a transfer that this process knows."""
        with self._lock:
            return self._open.get(folder / upload_id)

    def add(self, transfer: Transfer) -> Transfer:
        """Keep a transfer, or return the one that another thread has added meanwhile."""
        forgotten = []
        with self._lock:
            kept = self._open.setdefault(transfer.path, transfer)
            while len(self._open) > MOST_OPEN_TRANSFERS:
                forgotten.append(self._open.popitem(last=False)[1])
        for other in forgotten:
            other.pause()
        return kept

    def drop(self, folder: Path, upload_id: str) -> None:
        """Forget a transfer; its files stay."""
        with self._lock:
            transfer = self._open.pop(folder / upload_id, None)
        if transfer is not None:
            transfer.pause()


# A cache and nothing else: what is in it can be made again from the files and the database.
TRANSFERS = Transfers()


def remove_files(folder: Path, upload_id: str) -> None:
    """Remove what a settled transfer has left."""
    for name in (upload_id, f"{upload_id}.plain", f"{upload_id}.given"):
        (folder / name).unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return a file's size in bytes, 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
