"""Tensors and a few numbers in one encrypted file, which is read only by whoever names what it belongs to.

    magic (8 bytes) | salt (32) | the header's length (4) | header: JSON, sealed
    then each tensor's bytes in pieces, each sealed

Sealed: AES-256-GCM with a tag of 16 bytes, under a key of the file's own, derived from the site's cache key and the
salt, which is new for each file; the nonce is the piece's number. Every piece is authenticated with the head and with
the digest of what the file belongs to, so that one that was changed, cut off, moved, or is another's is not opened.
Sources: AES-GCM (NIST SP 800-38D), HKDF (RFC 5869).
"""

import json
import os
import secrets
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from site_node.durable import keeping, sync_folder, unfinished_beside
from site_node.errors import CacheError

MAGIC = b"WRCHECK\n"
SALT_BYTES, LENGTH_BYTES, TAG_BYTES, KEY_BYTES, NONCE_BYTES = 32, 4, 16, 32, 12
MOST_HEADER_BYTES = 1 << 24
PIECE_BYTES = 1 << 24
OWNER_ONLY = 0o600
TYPES = {str(kind).removeprefix("torch."): kind for kind in (torch.float32, torch.float64, torch.int64)}


@dataclass
class _Seal:
    """The cipher of one file; the number of the next piece."""

    cipher: AESGCM
    head: bytes
    number: int = 0

    def sealed(self, plain: memoryview | bytes) -> bytes:
        return self.cipher.encrypt(self._nonce(), plain, self.head)

    def opened(self, file: BinaryIO, length: int) -> bytes:
        piece = file.read(length + TAG_BYTES)
        try:
            return self.cipher.decrypt(self._nonce(), piece, self.head)
        except (InvalidTag, ValueError):
            raise _other() from None

    def _nonce(self) -> bytes:
        self.number += 1
        return self.number.to_bytes(NONCE_BYTES, "big")


def seal_tensors(
    path: Path, key: bytes, belongs_to: str, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a file that is there whole or not at all, also after a power cut.

    `belongs_to` is a digest; `numbers` is what JSON holds.
    Raises: OSError if the disk is full or gone; an earlier file under this name is then still there.
    """
    shapes = [[name, _type_of(tensor), list(tensor.shape)] for name, tensor in tensors.items()]
    header = json.dumps({"numbers": dict(numbers), "tensors": shapes}).encode()
    head = MAGIC + secrets.token_bytes(SALT_BYTES) + struct.pack(">I", len(header))
    seal = _seal(key, head, belongs_to)
    unfinished = unfinished_beside(path)
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "wb") as file:
            file.write(head + seal.sealed(header))
            for tensor in tensors.values():
                for piece in _pieces(_bytes_of(tensor.detach().cpu().contiguous())):
                    file.write(seal.sealed(piece))
            file.flush()
            keeping().sync(file.fileno())
        unfinished.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


def open_tensors(path: Path, key: bytes, belongs_to: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what was sealed for this: the numbers, and the tensors in memory of their own.

    Raises: FileNotFoundError; CacheError if it is another's, damaged or no such file.
    """
    with path.open("rb") as file:
        head = file.read(len(MAGIC) + SALT_BYTES + LENGTH_BYTES)
        length = int.from_bytes(head[-LENGTH_BYTES:], "big")
        if not head.startswith(MAGIC) or length > MOST_HEADER_BYTES:
            raise _other()
        seal = _seal(key, head, belongs_to)
        header = json.loads(seal.opened(file, length))  # written by ourselves: the seal says so
        tensors = {}
        for name, kind, shape in header["tensors"]:
            tensors[name] = torch.empty(shape, dtype=TYPES[kind])
            for piece in _pieces(_bytes_of(tensors[name])):
                piece[:] = seal.opened(file, len(piece))
        if file.read(1):
            raise _other()
    return header["numbers"], tensors


def _seal(key: bytes, head: bytes, belongs_to: str) -> _Seal:
    salt = head[len(MAGIC) : -LENGTH_BYTES]
    own = HKDF(SHA256(), KEY_BYTES, salt=salt, info=b"wardround.checkpoint/1").derive(key)
    return _Seal(AESGCM(own), head + belongs_to.encode())


def _other() -> CacheError:
    return CacheError("It is no checkpoint of this training.", "The training begins anew.")


def _type_of(tensor: Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in TYPES:
        raise ValueError(f"Expected tensors of {', '.join(TYPES)}, not of {name}.")
    return name


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return a tensor's own memory."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")


def _pieces(values: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(values), PIECE_BYTES):
        yield values[start : start + PIECE_BYTES]
