"""Weights as bytes: named float32 arrays, one flat vector, one file (safetensors, laid out by `manifest.py`)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocol.errors import TensorError
from protocol.manifest import MAX_HEADER_BYTES, Manifest, manifest_of

Weights = dict[str, NDArray[np.float32]]
Vector = NDArray[np.float32]
"""(parameter,) float32, in the manifest's order."""

LENGTH_BYTES = 8
LITTLE_ENDIAN = np.dtype("<f4")


def flatten(weights: Mapping[str, NDArray[np.float32]], manifest: Manifest) -> Vector:
    """Join the arrays into one vector, in the manifest's order.

    Raises: TensorError if names or shapes differ from the manifest.
    """
    if manifest_of(weights) != manifest:
        raise TensorError("The tensors' names or shapes are not those of the manifest.")
    return np.concatenate([np.ravel(weights[e.name]).astype(np.float32, copy=False) for e in manifest.entries])


def unflatten(vector: Vector, manifest: Manifest) -> Weights:
    """Cut a vector into the manifest's arrays; they share its memory.

    Raises: TensorError if the vector has another length.
    """
    if vector.shape != (manifest.parameters,):
        raise TensorError(f"Expected {manifest.parameters} values, got {vector.size}.")
    weights: Weights = {}
    start = 0
    for entry in manifest.entries:
        weights[entry.name] = vector[start : start + entry.parameters].reshape(entry.shape)
        start += entry.parameters
    return weights


def encode_weights(weights: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Return the bytes of a weights file. Equal weights give equal bytes."""
    manifest = manifest_of(weights)
    values = (np.ascontiguousarray(weights[entry.name], LITTLE_ENDIAN) for entry in manifest.entries)
    return b"".join((manifest.header, *(array.reshape(-1).data.cast("B") for array in values if array.size)))


def empty_weights(manifest: Manifest) -> Weights:
    """Return arrays to be filled that lie in memory as in a weights file, so that it need not be made of them again.

    One piece of memory for the whole model: the system gives it in huge pages, which are far quicker to fill.
    """
    return _values_in(_empty_file(manifest), manifest)


def weights_file(weights: Mapping[str, NDArray[np.float32]]) -> memoryview:
    """Return what `encode_weights` does: the memory of the arrays themselves if they lie in it as in the file."""
    manifest = manifest_of(weights)
    file = _file_around(weights, manifest)
    if file is None:
        file = _empty_file(manifest)
        for name, values in _values_in(file, manifest).items():
            values[...] = weights[name]
    return file.data


def read_manifest(source: Path | bytes | memoryview) -> Manifest:
    """Return the manifest of a weights file, reading its header only.

    Raises: TensorError if the file does not begin with a header of ours.
    """
    if not isinstance(source, Path):
        return Manifest.from_header(bytes(source[: _header_bytes(bytes(source[:LENGTH_BYTES]))]))
    with source.open("rb") as file:
        length = file.read(LENGTH_BYTES)
        return Manifest.from_header(length + file.read(_header_bytes(length) - LENGTH_BYTES))


def decode_weights(source: Path | bytes | memoryview, manifest: Manifest | None = None) -> Weights:
    """Read a weights file into arrays of their own memory.

    Raises: TensorError if the file is damaged, of another size, or not of the expected manifest.
    """
    found = read_manifest(source)
    if manifest is not None and found != manifest:
        raise TensorError("The file's tensors are not those of the expected manifest.")
    data = source.read_bytes() if isinstance(source, Path) else source
    if len(data) != found.payload_bytes:
        raise TensorError(f"Expected {found.payload_bytes} bytes, got {len(data)}. The file is cut off or too long.")
    vector = np.frombuffer(data, LITTLE_ENDIAN, offset=len(found.header)).astype(np.float32)
    return unflatten(vector, found)


def weights_over(data: NDArray[np.uint8]) -> Weights:
    """Return the arrays of a weights file that lies in memory; they share that memory.

    Raises: TensorError if it is no weights file, or of another size than its header says.
    """
    head = data[:LENGTH_BYTES].tobytes()
    found = Manifest.from_header(data[: _header_bytes(head)].tobytes())
    if data.size != found.payload_bytes:
        raise TensorError(f"Expected {found.payload_bytes} bytes, got {data.size}. The file is cut off or too long.")
    return unflatten(data[len(found.header) :].view(LITTLE_ENDIAN).astype(np.float32, copy=False), found)


def norm_of(weights: Mapping[str, NDArray[np.float32]]) -> float:
    """Return the L2 norm over all values; not finite if any value is not."""
    return float(np.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in weights.values())))


def _empty_file(manifest: Manifest) -> NDArray[np.uint8]:
    data = np.empty(manifest.payload_bytes, np.uint8)
    data[: len(manifest.header)] = np.frombuffer(manifest.header, np.uint8)
    return data


def _values_in(file: NDArray[np.uint8], manifest: Manifest) -> Weights:
    return unflatten(file[len(manifest.header) :].view(LITTLE_ENDIAN), manifest)


def _file_around(weights: Mapping[str, NDArray[np.float32]], manifest: Manifest) -> NDArray[np.uint8] | None:
    """Return the weights file in memory of which these arrays are the values, each at its place; None if none is."""
    file = next((array.base for array in weights.values()), None)
    if not isinstance(file, np.ndarray) or file.dtype != np.uint8 or file.shape != (manifest.payload_bytes,):
        return None
    if file[: len(manifest.header)].tobytes() != manifest.header:
        return None
    places = {name: array.__array_interface__ for name, array in _values_in(file, manifest).items()}
    return file if all(weights[name].__array_interface__ == place for name, place in places.items()) else None


def _header_bytes(length: bytes) -> int:
    size = int.from_bytes(length, "little") + LENGTH_BYTES
    if len(length) < LENGTH_BYTES or size > MAX_HEADER_BYTES:
        raise TensorError("The file does not begin with a safetensors header of permitted size.")
    return size
