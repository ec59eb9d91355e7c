"""The outbox's files: an envelope named by its egress number, and beside it its payload.

The gate keeps its own copy of a payload, named by digest, until the hub's receipt: what is in the outbox can be lost
and is then written again, byte for byte.
"""

import hashlib
import os
import stat
from pathlib import Path

from protocol.digest import hex_of
from site_node.durable import copy_durably, finished_files, remove, sync_folder, unfinished_beside, write_durably
from site_node.errors import GateError
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

    Raises: GateError if the file is no plain file, or not of this size and digest.
    """
    kept = kept_payload(paths, digest)
    unfinished = unfinished_beside(kept)
    try:
        found, count = _copy_bounded(source, unfinished, size)
        if count != size or found != hex_of(digest):
            raise GateError("A payload is not of the size and digest that its candidate states.", REMEDY)
        unfinished.replace(kept)
        sync_folder(kept.parent)
    finally:
        remove(unfinished)
    return kept


def kept_payload(paths: SitePaths, digest: str) -> Path:
    """Return where the gate keeps a payload."""
    return paths.gate_payloads / hex_of(digest)


def place(paths: SitePaths, number: int, envelope: bytes, payload_digest: str | None) -> None:
    """Put a recorded message into the outbox, the payload first; what is there already is left."""
    target = numbered(paths.outbox, number)
    payload = numbered(paths.outbox, number, PAYLOAD_SUFFIX)
    if payload_digest is not None and not payload.exists():
        copy_durably(kept_payload(paths, payload_digest), payload)
    if not target.exists():
        write_durably(target, envelope)


def clear(paths: SitePaths, number: int, payload_digest: str | None, payload_is_needed: bool) -> None:
    """Remove a receipted message from the outbox, and the gate's copy of its payload if no other message needs it."""
    remove(numbered(paths.outbox, number))
    remove(numbered(paths.outbox, number, PAYLOAD_SUFFIX))
    if payload_digest is not None and not payload_is_needed:
        remove(kept_payload(paths, payload_digest))


def received(folder: Path) -> list[tuple[int, Path]]:
    """Return the numbered envelopes of a folder in their order."""
    found = [(number_of(path), path) for path in finished_files(folder, ENVELOPE_SUFFIX)]
    return [(number, path) for number, path in found if number is not None]


def _copy_bounded(source: Path, target: Path, limit: int) -> tuple[str, int]:
    # A link could name the gate's own key: only a plain file of the handover folder is read.
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise GateError("A candidate's payload cannot be read.", REMEDY) from error
    hasher, count = hashlib.sha256(), 0
    with os.fdopen(descriptor, "rb") as reader, target.open("xb") as writer:
        if not stat.S_ISREG(os.fstat(reader.fileno()).st_mode):
            raise GateError("A candidate's payload is no plain file.", REMEDY)
        while count <= limit and (chunk := reader.read(COPY_CHUNK_BYTES)):
            hasher.update(chunk)
            writer.write(chunk)
            count += len(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return hasher.hexdigest(), count
