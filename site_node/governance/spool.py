"""The outbox's files: an envelope named by its egress number, and beside it its payload.

The gate keeps its own copy of a payload, named by digest, until the hub's receipt: what is in the outbox can be lost
and is then written again, byte for byte.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from protocol.digest import hex_of
from site_node.durable import (
    GROUP_READS,
    copy_durably,
    finished_files,
    keeping,
    remove,
    sync_folder,
    unfinished_beside,
    write_durably,
)
from site_node.errors import GateError, PayloadDamagedError
from site_node.settings import SitePaths

ENVELOPE_SUFFIX = ".dsse.json"
PAYLOAD_SUFFIX = ".payload"
COPY_CHUNK_BYTES = 1 << 20
REMEDY = "Nothing left. See the worker's log."


def numbered(folder: Path, number: int, suffix: str = ENVELOPE_SUFFIX) -> Path:
    """Return the file of a number: sixteen digits, so that names sort as numbers."""
    return folder / f"{number:016d}{suffix}"


def number_of(path: Path) -> int | None:
    """Return the number in a file's name, or None if it is not such a name."""
    digits = path.name.split(".", 1)[0]
    return int(digits) if len(digits) == 16 and digits.isascii() and digits.isdigit() else None


def keep_payload(paths: SitePaths, source: Path, digest: str, size: int) -> Path:
    """Copy a payload out of the worker's reach and check the copy; the same payload again changes nothing.

    Raises: GateError if the file is no plain file; PayloadDamagedError if it is not of this size and digest.
    """
    kept = kept_payload(paths, digest)
    unfinished = unfinished_beside(kept)
    try:
        # Where worker and gate are one process (a simulation), what it digested itself needs no copy.
        if not keeping().linked(source, unfinished, digest) or unfinished.stat().st_size != size:
            remove(unfinished)
            found, count = _write(unfinished, _pieces_of(source, size))
            if (found, count) != (digest, size):
                raise PayloadDamagedError("A payload is not of the size and digest that its candidate states.", REMEDY)
            keeping().note(unfinished, digest)
        unfinished.replace(kept)
        sync_folder(kept.parent)
    finally:
        remove(unfinished)
    return kept


def keep_stream(paths: SitePaths, pieces: Iterable[bytes | memoryview]) -> tuple[str, int]:
    """Write what the gate makes itself as a payload in its own folder; return its digest and size.

    Guarantee: memory is a piece. The file is there whole or not at all, whatever making a piece raises.
    """
    unfinished = unfinished_beside(paths.gate_payloads / "stream")
    try:
        digest, count = _write(unfinished, pieces)
        keeping().note(unfinished, digest)
        unfinished.replace(kept_payload(paths, digest))
        sync_folder(paths.gate_payloads)
    finally:
        remove(unfinished)
    return digest, count


def kept_payload(paths: SitePaths, digest: str) -> Path:
    """Return where the gate keeps a payload."""
    return paths.gate_payloads / hex_of(digest)


def has_payload(paths: SitePaths, number: int, digest: str) -> bool:
    """Tell whether a recorded message's payload is still there to be sent."""
    return kept_payload(paths, digest).exists() or numbered(paths.outbox, number, PAYLOAD_SUFFIX).exists()


def place(paths: SitePaths, number: int, envelope: bytes, payload_digest: str | None) -> None:
    """Put a recorded message into the outbox, the payload first; what is there already is left."""
    target = numbered(paths.outbox, number)
    payload = numbered(paths.outbox, number, PAYLOAD_SUFFIX)
    if payload_digest is not None and not payload.exists():
        _give(kept_payload(paths, payload_digest), payload)
    if not target.exists():
        write_durably(target, envelope)


def clear(paths: SitePaths, number: int, payload_digest: str | None, payload_is_needed: bool) -> None:
    """Remove a receipted message from the outbox, and the gate's copy of its payload if no other message needs it."""
    remove(numbered(paths.outbox, number))
    remove(numbered(paths.outbox, number, PAYLOAD_SUFFIX))
    if payload_digest is not None and not payload_is_needed:
        remove(kept_payload(paths, payload_digest))


def withhold(paths: SitePaths, number: int, payload_digest: str | None) -> None:
    """Take a message out of the outbox for a while; its payload stays with the gate."""
    payload = numbered(paths.outbox, number, PAYLOAD_SUFFIX)
    if payload_digest is not None and not kept_payload(paths, payload_digest).exists() and payload.exists():
        copy_durably(payload, kept_payload(paths, payload_digest))
    clear(paths, number, None, payload_is_needed=True)


def received(folder: Path) -> list[tuple[int, Path]]:
    """Return the numbered envelopes of a folder in their order."""
    found = [(number_of(path), path) for path in finished_files(folder, ENVELOPE_SUFFIX)]
    return [(number, path) for number, path in found if number is not None]


def _give(kept: Path, target: Path) -> None:
    """Let the agent read the gate's own copy under the outbox's name; where that cannot be, write another copy.

    A second name and not a second copy: the file stays the gate's, and its group, the outbox's, may only read it.
    """
    unfinished = unfinished_beside(target)
    try:
        os.chown(kept, -1, target.parent.stat().st_gid)
        kept.chmod(GROUP_READS)
        unfinished.hardlink_to(kept)
    except OSError:  # another disk, one without links, or a group that the gate does not belong to
        remove(unfinished)
        copy_durably(kept, target)
        return
    unfinished.replace(target)
    sync_folder(target.parent)


def _write(target: Path, pieces: Iterable[bytes | memoryview]) -> tuple[str, int]:
    hasher, count = hashlib.sha256(), 0
    with target.open("xb") as file:
        for piece in pieces:
            before, count = count, count + file.write(piece)
            keeping().begin_to_sync(file.fileno(), before, count)  # the disk works while the digest is taken
            hasher.update(piece)
        file.flush()
        keeping().sync(file.fileno())
    return "sha256:" + hasher.hexdigest(), count


def _pieces_of(source: Path, limit: int) -> Iterator[memoryview]:
    """Yield a candidate's payload, a piece more than the limit at most; a piece is valid until the next one."""
    # A link could name the gate's own key: only a plain file of the handover folder is read.
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise GateError("A candidate's payload cannot be read.", REMEDY) from error
    count, memory = 0, memoryview(bytearray(COPY_CHUNK_BYTES))
    with os.fdopen(descriptor, "rb", buffering=0) as reader:
        if not stat.S_ISREG(os.fstat(reader.fileno()).st_mode):
            raise GateError("A candidate's payload is no plain file.", REMEDY)
        while count <= limit and (filled := reader.readinto(memory)):
            count += filled
            yield memory[:filled]
