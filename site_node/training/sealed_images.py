"""Prepared pixels on disk, encrypted and authenticated image by image, so that any of them is read without the others.

    magic (8 bytes) | salt (32) | length of the header (4) | header: shape and type, JSON | its tag (16)
    then, for each image in order, its bytes under AES-256-GCM with a tag of 16 bytes

The file's own key is derived from the site's cache key and the salt, which is new for each file: no nonce (the image's
number) is ever used twice with a key. The header is what every image is authenticated with, so that images cannot be
moved to another file, place or shape.
Sources: AES-GCM (NIST SP 800-38D), HKDF (RFC 5869).
"""

import json
import mmap
import secrets
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from site_node.durable import unfinished_beside
from site_node.errors import CacheError

MAGIC = b"WRSEAL1\n"
SALT_BYTES, LENGTH_BYTES, TAG_BYTES, KEY_BYTES = 32, 4, 16, 32
MOST_HEADER_BYTES = 1024
TYPES = ("float16", "uint8")
HEADER_NUMBER = 0


class SealedImages:
    """Images in an encrypted file, read by their numbers.

    Shapes: as an array (image, ...) of the header's shape; `images[numbers]` decrypts those images alone.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        """Open a file. Raises: CacheError if it is no such file, is cut off, or was sealed with another key."""
        self._path = path
        with path.open("rb") as file:
            self._head, self._cipher, header = _opened(file, key)
            self._start = file.tell()
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.shape: tuple[int, ...] = tuple(header["shape"])
        self.dtype = np.dtype(header["dtype"])
        self._stride = _item_bytes(self.shape, self.dtype) + TAG_BYTES
        if len(self._data) != self._start + self.shape[0] * self._stride:
            raise CacheError("A file of prepared images is cut off.", "It is made again.")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, numbers: NDArray[np.int64] | Sequence[int] | slice) -> NDArray[Any]:
        """Decrypt images. Shapes: numbers (some,); result (some, ...). Raises: CacheError if one was changed."""
        chosen = np.arange(len(self))[numbers]
        result = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for place, number in enumerate(chosen):
            result[place] = self._image(int(number))
        return result

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def _image(self, number: int) -> NDArray[Any]:
        start = self._start + number * self._stride
        try:
            plain = self._cipher.decrypt(_nonce(number + 1), self._data[start : start + self._stride], self._head)
        except InvalidTag:
            self._path.unlink(missing_ok=True)
            raise CacheError(
                "A prepared image was changed on the disk.", "The file was deleted; a next attempt makes it again."
            ) from None
        return np.frombuffer(plain, self.dtype).reshape(self.shape[1:])


def seal_images(path: Path, key: bytes, shape: Sequence[int], dtype: str, images: Iterable[NDArray[Any]]) -> None:
    """Write images, one at a time, as a file that is there whole or not at all.

    Shapes: `shape` is (image, ...), and each image has the rest of it.
    """
    salt = secrets.token_bytes(SALT_BYTES)
    header = json.dumps({"shape": [int(length) for length in shape], "dtype": dtype}).encode()
    head = MAGIC + salt + struct.pack(">I", len(header)) + header
    cipher = _cipher(key, salt)
    unfinished = unfinished_beside(path)
    try:
        with unfinished.open("xb") as file:
            unfinished.chmod(0o600)
            file.write(head + cipher.encrypt(_nonce(HEADER_NUMBER), b"", head))
            for number, image in enumerate(images, 1):
                plain = np.ascontiguousarray(image, dtype).tobytes()
                file.write(cipher.encrypt(_nonce(number), plain, head))
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


def sealed_bytes(shape: Sequence[int], dtype: str) -> int:
    """Return the size of such a file, but for its head of some hundred bytes."""
    return int(shape[0]) * (_item_bytes(shape, np.dtype(dtype)) + TAG_BYTES)


def _opened(file: BinaryIO, key: bytes) -> tuple[bytes, AESGCM, dict[str, Any]]:
    fixed = file.read(len(MAGIC) + SALT_BYTES + LENGTH_BYTES)
    length = int.from_bytes(fixed[-LENGTH_BYTES:], "big")
    if (
        not fixed.startswith(MAGIC)
        or len(fixed) != len(MAGIC) + SALT_BYTES + LENGTH_BYTES
        or length > MOST_HEADER_BYTES
    ):
        raise CacheError("It is no file of prepared images.", "It is made again.")
    header = file.read(length)
    cipher = _cipher(key, fixed[len(MAGIC) : -LENGTH_BYTES])
    try:
        cipher.decrypt(_nonce(HEADER_NUMBER), file.read(TAG_BYTES), fixed + header)
    except InvalidTag:
        raise CacheError("Prepared images were sealed with another key.", "They are made again.") from None
    found: dict[str, Any] = json.loads(header)
    return fixed + header, cipher, found


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt=salt, info=b"wardround.prepared-images/1").derive(key))


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _item_bytes(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
