"""Weights files side by side, chunk by chunk, in a fixed order; never all of any of them in memory.

All weights files of one manifest have the same header bytes, so the values of a parameter lie at the same offset in
each. What is computed per value (a mean, a median) can therefore be computed on a narrow window over all files at once.

    for window in side_by_side([base, update_a, update_b], manifest):
        window.shape  # (3, values)
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from hub.errors import AggregationError
from protocol.manifest import BYTES_PER_VALUE, Manifest
from protocol.tensors import LITTLE_ENDIAN

WINDOW_BYTES = 4 << 20
SMALLEST_WINDOW_VALUES, LARGEST_WINDOW_VALUES = 1024, 1 << 16
"""At most 512 KB of float64: what is computed with stays in the processor's cache, and in memory that is used again."""
STRETCH = 1 << 17

Window = NDArray[np.float32]
"""(file, value) float32."""


def side_by_side(paths: Sequence[Path], manifest: Manifest, window_bytes: int | None = None) -> Iterator[Window]:
    """Yield the files' values in windows of `WINDOW_BYTES`, or so many, files in the given order.

    Shapes: each window (file, value) float32; the windows' values, one after another, are the manifest's parameters.
    Guarantee: memory is one window, however many files there are and however large they are. A window is only valid
        until the next one is asked for, because its memory is used again.
    Raises: AggregationError if a file is missing, of another size or of another manifest.
    """
    size = WINDOW_BYTES if window_bytes is None else window_bytes
    width = max(SMALLEST_WINDOW_VALUES, size // (BYTES_PER_VALUE * max(1, len(paths))))
    width = min(width, LARGEST_WINDOW_VALUES, max(1, manifest.parameters))
    buffer = np.empty((len(paths), width), LITTLE_ENDIAN)
    with ExitStack() as stack:
        files = [stack.enter_context(_opened(path, manifest)) for path in paths]
        for start in range(0, manifest.parameters, width):
            count = min(width, manifest.parameters - start)
            for row, file in zip(buffer, files, strict=True):
                _fill(row[:count], file)
            yield buffer[:, :count]


def squared_norm(path: Path, manifest: Manifest) -> float:
    """Return the sum of the squares of a weights file's values, in float64."""
    return float(sum(sum_of_squares(window[0]) for window in side_by_side([path], manifest)))


def sum_of_squares(values: NDArray[np.float32]) -> float:
    """Return the sum of squares; not finite if and only if a value is not: float32 squares fit into float64.

    Taken in float32 over short stretches, which is good to a millionth and four times as quick; in float64 where that
    overflows.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        parts = (values[start : start + STRETCH] for start in range(0, values.size, STRETCH))
        total = sum(float(np.dot(part, part)) for part in parts)
    if math.isfinite(total):
        return total
    wide = values.astype(np.float64)
    return float(np.dot(wide, wide))


def finite(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the values as they are stored.

    Raises: AggregationError if one is not finite or too large for float32.
    """
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if not bool(np.isfinite(narrow).all()):
        raise AggregationError("The next version would hold values that are not finite.", "Lower the learning rates.")
    return narrow


def as_bytes(values: NDArray[np.float32]) -> bytes:
    """Return the bytes of values in a weights file."""
    return values.astype(LITTLE_ENDIAN, copy=False).tobytes()


def file_bytes(manifest: Manifest, values: Iterable[NDArray[np.float32]]) -> Iterator[bytes]:
    """Yield the bytes of a weights file whose values come in chunks."""
    yield manifest.header
    for chunk in values:
        yield as_bytes(chunk)


def _opened(path: Path, manifest: Manifest) -> BinaryIO:
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        raise AggregationError(
            "A blob that was accepted is missing.", "Restore the blob store from a backup."
        ) from None
    header = file.read(len(manifest.header))
    if header != manifest.header or path.stat().st_size != manifest.payload_bytes:
        file.close()
        raise AggregationError("A blob is not a weights file of its version's manifest.", "Restore it from a backup.")
    return file


def _fill(row: NDArray[np.float32], file: BinaryIO) -> None:
    view = row.data.cast("B")
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise AggregationError("A blob is shorter than it was.", "Restore it from a backup.")
        view = view[count:]
