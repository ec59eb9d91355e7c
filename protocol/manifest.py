"""Names and shapes of a model's tensors: what both sides must agree on before weights travel.

A model is a set of named float32 arrays, ordered by name. Its weights file is safetensors: this manifest as the header,
then all values in the manifest's order, so that equal manifests have equal header bytes and the values of any two
weights files lie at the same offsets. That is what lets the hub check an upload while it arrives, and sum many of them
chunk by chunk without parsing any.
Source: the safetensors format (huggingface/safetensors, README "Format").
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from protocol.digest import canonical_json, digest_of_bytes, parse_json
from protocol.errors import DigestError, TensorError

BYTES_PER_VALUE = 4
MAX_HEADER_BYTES = 32 << 20
MAX_PARAMETERS = 1 << 40
MAX_NAME_CHARACTERS = 512


@dataclass(frozen=True)
class TensorEntry:
    """One float32 tensor: its name and shape."""

    name: str
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Return the number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Manifest:
    """The tensors of a model, ordered by name."""

    entries: tuple[TensorEntry, ...]

    @cached_property
    def parameters(self) -> int:
        """Return the number of values of the whole model."""
        return sum(entry.parameters for entry in self.entries)

    @cached_property
    def header(self) -> bytes:
        """Return the safetensors header, its 8-byte length included. Equal manifests have equal headers."""
        document: dict[str, object] = {}
        offset = 0
        for entry in self.entries:
            end = offset + BYTES_PER_VALUE * entry.parameters
            document[entry.name] = {"dtype": "F32", "shape": list(entry.shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # values start at a multiple of eight, as the format asks
        return len(text).to_bytes(8, "little") + text

    @property
    def payload_bytes(self) -> int:
        """Return the size of a weights file of this model."""
        return len(self.header) + BYTES_PER_VALUE * self.parameters

    def canonical_bytes(self) -> bytes:
        """Return the canonical JSON that is digested."""
        return canonical_json([{"name": e.name, "shape": list(e.shape)} for e in self.entries])

    @property
    def digest(self) -> str:
        """Return the digest of the names and shapes."""
        return digest_of_bytes(self.canonical_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Parse `canonical_bytes`.

        Raises: TensorError if they are something else.
        """
        try:
            entries = tuple(TensorEntry(str(e["name"]), tuple(e["shape"])) for e in parse_json(data))
        except (DigestError, KeyError, TypeError) as error:
            raise TensorError("Expected a manifest: a list of tensors with name and shape.") from error
        return checked(Manifest(entries))

    @classmethod
    def from_header(cls, header: bytes) -> "Manifest":
        """Parse a safetensors header (with its length) that this module could have written.

        Raises: TensorError for any other layout, even if safetensors allows it.
        """
        try:
            document = parse_json(header[8:])
            entries = tuple(TensorEntry(name, tuple(value["shape"])) for name, value in document.items())
        except (DigestError, KeyError, TypeError, AttributeError) as error:
            raise TensorError("The file does not begin with a safetensors header.") from error
        manifest = checked(Manifest(entries))
        if manifest.header != header:
            raise TensorError("Expected float32 tensors in the order of their names, without gaps or metadata.")
        return manifest


def manifest_of(weights: Mapping[str, NDArray[np.float32]]) -> Manifest:
    """Return the manifest of named arrays."""
    return checked(Manifest(tuple(TensorEntry(name, tuple(weights[name].shape)) for name in sorted(weights))))


def checked(manifest: Manifest) -> Manifest:
    """Return the manifest if its names and shapes are usable.

    Raises: TensorError if it is empty, unordered, too large, or has a name or shape that is no name or shape.
    """
    names = [entry.name for entry in manifest.entries]
    unusable = any(not 0 < len(name) <= MAX_NAME_CHARACTERS or name == "__metadata__" for name in names)
    if not names or names != sorted(set(names)) or unusable:
        raise TensorError("Expected at least one tensor, each with its own name, ordered by name.")
    for entry in manifest.entries:
        if any(type(size) is not int or size < 0 for size in entry.shape):
            raise TensorError("Expected shapes of whole numbers that are not negative.")
    if manifest.parameters > MAX_PARAMETERS:
        raise TensorError(f"A model holds at most {MAX_PARAMETERS} values.")
    return manifest
