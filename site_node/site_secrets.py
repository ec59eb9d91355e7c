"""The site's one secret of 32 bytes, and what is derived from it. Neither ever leaves the hospital."""

from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from site_node.errors import SettingsError

KEY_BYTES = 32


def read_noise_key(path: Path) -> bytes:
    """Return the site's secret.

    Raises: SettingsError if it is missing or damaged.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError("The site's noise key is missing or damaged.", "`wardround site init` makes one.")
    return key


def split_key(noise_key: bytes) -> bytes:
    """Return the key by which patients are dealt to train, validation and test."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"wardround.split-key/1").derive(noise_key)
