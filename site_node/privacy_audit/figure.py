"""Grey pictures side by side in a PNG file, with what they show in its description. And a picture that is nobody's.

PNG is written here in a few lines, so that a hospital's node needs no picture library for one figure.
Source: PNG, W3C Recommendation 2003 (ISO/IEC 15948), sections 5.3 (chunks), 11.2 and 11.3.4 (text).
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ZOOM = 4
GAP_PIXELS = 8
WHITE = 255
SHOWN_DEVIATIONS = 2.5
"""Pictures of mean 0 and deviation 1 are shown from minus to plus this."""


def side_by_side(pictures: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Return pictures in a row, enlarged, white between them.

    Shapes: pictures (row, column) each, equally high; result (row, column) uint8.
    """
    shown = []
    for picture in pictures:
        grey = (np.clip(picture / SHOWN_DEVIATIONS, -1.0, 1.0) + 1.0) * (WHITE / 2)
        tile = np.rint(grey).astype(np.uint8).repeat(ZOOM, 0).repeat(ZOOM, 1)
        shown += [tile, np.full((tile.shape[0], GAP_PIXELS), WHITE, np.uint8)]
    return np.concatenate(shown[:-1], axis=1)


def grey_png(pixels: NDArray[np.uint8], description: str) -> bytes:
    """Return a PNG file of 8-bit grey.

    Shapes: pixels (row, column).
    """
    height, width = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    text = b"Description\0" + description.encode("latin-1", "replace")
    chunks = [
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        _chunk(b"tEXt", text),
        _chunk(b"IDAT", zlib.compress(rows, 9)),
        _chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def chest_phantom(size: int) -> NDArray[np.float32]:
    """Return a drawn chest of bright tissue, two dark lungs with ribs, and a heart. Shapes: result (size, size)."""
    rows, columns = np.mgrid[:size, :size] / (size - 1) * 2.0 - 1.0

    def inside(row: float, column: float, height: float, width: float) -> NDArray[np.bool_]:
        return np.asarray(((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 < 1.0)

    picture = 0.2 + 0.6 * inside(0.1, 0.0, 1.0, 0.95)
    lungs = inside(0.0, -0.45, 0.75, 0.33) | inside(0.0, 0.45, 0.75, 0.33)
    picture[lungs] = 0.25 + 0.12 * (np.sin(rows[lungs] * 18.0 + 2.0 * columns[lungs] ** 2) > 0.6)
    picture[inside(0.3, 0.15, 0.4, 0.3)] = 0.85
    picture[np.abs(columns) < 0.06] = 0.9
    return np.asarray((picture - picture.mean()) / picture.std(), np.float32)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
