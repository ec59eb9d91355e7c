"""A file that only the holder of a passphrase or key file can read, written and read in pieces of one mebibyte.

    "WRBACKUP" | length of the head, 4 bytes | head, JSON | piece | piece | ... | last piece

Each piece is ChaCha20-Poly1305 over up to a mebibyte; its nonce is the file's own 7 random bytes, the piece's number
and whether it is the last. So no piece can be changed, exchanged, repeated or left out, and the file cannot be cut
short without notice. The head (how the key is made) is bound to every piece.

Source: Hoang, Reyhanitabar, Rogaway and Vizár 2015, "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance" (STREAM); RFC 8439 (ChaCha20-Poly1305); RFC 7914 (scrypt); RFC 5869 (HKDF).
"""

import io
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.digest import canonical_json, parse_json
from protocol.errors import DigestError
from site_node.errors import BackupError

MAGIC = b"WRBACKUP"
PIECE_BYTES = 1 << 20
TAG_BYTES, PREFIX_BYTES, KEY_BYTES, SALT_BYTES = 16, 7, 32, 16
MAX_HEAD_BYTES = 4096
SCRYPT_COST = 1 << 17
"""128 MiB of memory and about half a second (OWASP, Password Storage Cheat Sheet)."""
MAX_SCRYPT_COST = 1 << 20
MIN_KEY_FILE_BYTES, MAX_KEY_FILE_BYTES = 32, 4096
MIN_PASSPHRASE = 12
DAMAGED = "The backup was changed, is damaged, or is cut short."
ANOTHER = "Take another copy of it; this one is of no use from the damage on."
_PURPOSE = b"wardround site backup"


class _Head(BaseModel):
    """What stands in clear at the beginning of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["wardround.sealed-file/1"] = Field(default="wardround.sealed-file/1", alias="schema")
    key: Literal["passphrase", "file"]
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    cost: int = Field(default=0, ge=0, le=MAX_SCRYPT_COST)
    prefix: str = Field(pattern=r"^[0-9a-f]{14}$")


@dataclass(frozen=True)
class Secret:
    """What a backup is locked with: a passphrase, or the bytes of a key file. It is never printed."""

    kind: Literal["passphrase", "file"]
    value: bytes

    def __repr__(self) -> str:
        """Show nothing of it."""
        return f"Secret({self.kind})"

    @classmethod
    def from_passphrase(cls, text: str) -> "Secret":
        """Return a passphrase.

        Raises: BackupError if it is short: the file may be tried for ever by whoever finds it.
        """
        if len(text) < MIN_PASSPHRASE:
            raise BackupError(f"The passphrase has fewer than {MIN_PASSPHRASE} characters.", "Choose several words.")
        return cls("passphrase", text.encode())

    @classmethod
    def from_file(cls, path: Path) -> "Secret":
        """Return a key file's bytes.

        Raises: BackupError if there is none, or it is too short to be a key.
        """
        try:
            with path.open("rb") as file:
                value = file.read(MAX_KEY_FILE_BYTES + 1)
        except OSError as error:
            raise BackupError(f"The key file {path} cannot be read: {error.strerror}.", "Name another.") from None
        if not MIN_KEY_FILE_BYTES <= len(value) <= MAX_KEY_FILE_BYTES:
            remedy = "Make one with `head -c 32 /dev/urandom > FILE`, and keep it elsewhere than the backups."
            raise BackupError(f"The key file {path} does not have {MIN_KEY_FILE_BYTES} bytes or more.", remedy)
        return cls("file", value)


class SealedWriter(io.RawIOBase):
    """Writes a sealed file; what was written counts only once `close` has sealed the last piece."""

    def __init__(self, file: BinaryIO, secret: Secret, cost: int = SCRYPT_COST) -> None:
        by_words = secret.kind == "passphrase"
        head = _Head(
            key=secret.kind,
            salt=secrets.token_hex(SALT_BYTES),
            cost=cost if by_words else 0,
            prefix=secrets.token_hex(PREFIX_BYTES),
        )
        self._seal = _Pieces(head, secret)
        self._file, self._held = file, bytearray()
        data = canonical_json(head.model_dump(mode="json", by_alias=True))
        file.write(MAGIC + len(data).to_bytes(4, "big") + data)

    def writable(self) -> bool:
        """Tell that it is written to."""
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Take in bytes; whole pieces go to the file, and one is always held back, because it may be the last."""
        self._held += data
        while len(self._held) > PIECE_BYTES:
            self._file.write(self._seal.closed(bytes(self._held[:PIECE_BYTES]), is_last=False))
            del self._held[:PIECE_BYTES]
        return len(data)

    def finish(self) -> None:
        """Seal the last piece."""
        self._file.write(self._seal.closed(bytes(self._held), is_last=True))
        self._held.clear()


class SealedReader(io.RawIOBase):
    """Reads a sealed file from its beginning.

    Guarantee: no byte is returned that was not written with the same secret, in this place; its end is returned only
        where the writer ended.
    Raises: BackupError, while it is opened, if the file is none, or the secret another; and where it is damaged.
    """

    def __init__(self, file: BinaryIO, secret: Secret) -> None:
        self._file = file
        self._pieces = _Pieces(_read_head(file, secret), secret)
        self._next = file.read(PIECE_BYTES + TAG_BYTES)
        self._clear, self._at, self._ended = b"", 0, False
        self._advance("The passphrase or key file is another than the backup's, or the backup is damaged.")

    def readable(self) -> bool:
        """Tell that it is read from."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to so many bytes; fewer only at the end."""
        parts, left = [], size if size >= 0 else 1 << 62
        while left:
            if self._at == len(self._clear):
                if self._ended:
                    break
                self._advance(DAMAGED)
                continue
            part = self._clear[self._at : self._at + left]
            self._at += len(part)
            left -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _advance(self, message: str) -> None:
        piece, self._next = self._next, self._file.read(PIECE_BYTES + TAG_BYTES)
        self._ended = not self._next
        try:
            self._clear, self._at = self._pieces.opened(piece, is_last=self._ended), 0
        except InvalidTag:
            raise BackupError(message, ANOTHER) from None


class _Pieces:
    """Seals and opens pieces in their order."""

    def __init__(self, head: _Head, secret: Secret) -> None:
        self._cipher = ChaCha20Poly1305(_key(head, secret))
        self._bound = canonical_json(head.model_dump(mode="json", by_alias=True))
        self._prefix, self._number = bytes.fromhex(head.prefix), 0

    def closed(self, data: bytes, *, is_last: bool) -> bytes:
        return self._turn(self._cipher.encrypt, data, is_last)

    def opened(self, data: bytes, *, is_last: bool) -> bytes:
        return self._turn(self._cipher.decrypt, data, is_last)

    def _turn(self, way: Callable[[bytes, bytes, bytes], bytes], data: bytes, is_last: bool) -> bytes:
        nonce = self._prefix + self._number.to_bytes(4, "big") + bytes([is_last])
        self._number += 1
        return way(nonce, data, self._bound)


def _key(head: _Head, secret: Secret) -> bytes:
    salt = bytes.fromhex(head.salt)
    if secret.kind == "passphrase":
        return Scrypt(salt=salt, length=KEY_BYTES, n=head.cost, r=8, p=1).derive(secret.value)
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=_PURPOSE).derive(secret.value)


def _read_head(file: BinaryIO, secret: Secret) -> _Head:
    start = file.read(len(MAGIC) + 4)
    if start[: len(MAGIC)] != MAGIC:
        raise BackupError("This is no backup of a Wardround site.", "Name a file that `wardround site backup` wrote.")
    size = int.from_bytes(start[len(MAGIC) :], "big")
    try:
        head = _Head.model_validate(parse_json(file.read(size) if size <= MAX_HEAD_BYTES else b""))
    except (DigestError, ValidationError):
        raise BackupError(DAMAGED, ANOTHER) from None
    if head.key == "passphrase" and (head.cost < 2 or head.cost & (head.cost - 1)):
        raise BackupError(DAMAGED, ANOTHER)
    if head.key != secret.kind:
        wanted = "--key-file FILE" if head.key == "file" else "its passphrase, without --key-file"
        raise BackupError("The backup was locked in another way.", f"Open it with {wanted}.")
    return head
