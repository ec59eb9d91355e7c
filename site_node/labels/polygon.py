"""Closed contours filled by the even-odd rule: a pixel belongs if its centre lies within an odd number of them.

So a contour within another is a hole, and one within the hole an island. Edges are half open: a centre on the edge that
two areas share belongs to exactly one.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def filled(contours: Iterable[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill closed contours of one slice.

    Shapes: each contour (point, 2): row and column of its corners, in voxels, the first one joined to the last; result
        `shape`, (row, column).
    """
    rows, columns = shape
    crossings = np.zeros((rows, columns + 1), np.uint8)
    for contour in contours:
        for (row, column), (next_row, next_column) in zip(contour, np.roll(contour, -1, axis=0), strict=True):
            low, high = min(row, next_row), max(row, next_row)
            crossed = np.arange(max(0, int(np.ceil(low))), min(rows, int(np.ceil(high))))
            if crossed.size:
                along = (crossed - row) / (next_row - row)
                first = np.ceil(column + along * (next_column - column))
                crossings[crossed, np.clip(first, 0, columns).astype(np.intp)] ^= 1
    inside = np.bitwise_xor.accumulate(crossings, axis=1)[:, :columns]
    return np.asarray(inside, np.bool_)
