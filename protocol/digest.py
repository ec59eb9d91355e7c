"""Canonical JSON and SHA-256 digests.

Source: RFC 8785 (JSON Canonicalization Scheme), FIPS 180-4.
Convention: a digest is written `sha256:` and 64 lower-case hexadecimal digits. It is taken over bytes as first
stored, never over a re-serialisation of what was parsed from them.

    >>> digest_of({"b": 1, "a": [True, None]}) == digest_of_bytes(b'{"a":[true,null],"b":1}')
    True
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import rfc8785
from pydantic import StringConstraints

from protocol.errors import DigestError

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]


def canonical_json(value: Any) -> bytes:
    """Serialise JSON-compatible data in the canonical form of RFC 8785.

    Raises: DigestError if the data has no canonical form (not-a-number, an integer beyond 2**53, a foreign type).
    """
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise DigestError(f"The data has no canonical JSON form (RFC 8785): {error}") from error


def parse_json(data: bytes) -> Any:
    """Parse JSON bytes, refusing duplicate keys and non-finite numbers.

    Raises: DigestError if the bytes are not such JSON.
    """
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DigestError("Expected a JSON document with unique keys and finite numbers.") from error


def digest_of_bytes(data: bytes | memoryview) -> str:
    """Return the `sha256:` digest of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """Return the digest of the canonical JSON of the data."""
    return digest_of_bytes(canonical_json(value))


def digest_of_file(path: Path) -> str:
    """Return the digest of a file's bytes, read in chunks."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def is_digest(text: str) -> bool:
    """Tell whether the text has the form of a digest; safe to use as a file name after `hex_of`."""
    return re.fullmatch(DIGEST_PATTERN, text) is not None


def hex_of(digest: str) -> str:
    """Return the 64 hexadecimal digits, which are also the blob's file name.

    Raises: DigestError if the text is not a digest.
    """
    if not is_digest(digest):
        raise DigestError("Expected a digest: 'sha256:' and 64 lower-case hexadecimal digits.")
    return digest.removeprefix("sha256:")


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError("duplicate key")
        seen[key] = value
    return seen


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
