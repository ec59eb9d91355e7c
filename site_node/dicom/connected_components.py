"""Connected components of a picture's marked pixels, by runs, with numpy alone.

Source: run-based labelling (He, Chao and Suzuki 2008, IEEE Trans. Image Processing 17(5)), with the equivalences
resolved by hooking and pointer jumping (Shiloach and Vishkin 1982, J. Algorithms 3(1)).
Convention: two pixels that touch by a corner are connected.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Components:
    """The components' boxes and sizes; `bottom` and `right` are the first row and column after.

    Shapes: every field (component,). `runs` counts the horizontal runs of marked pixels.
    """

    top: Ints
    bottom: Ints
    left: Ints
    right: Ints
    pixels: Ints
    runs: Ints

    def __len__(self) -> int:
        return len(self.top)

    @property
    def height(self) -> Ints:
        """Return the boxes' heights."""
        return self.bottom - self.top

    @property
    def width(self) -> Ints:
        """Return the boxes' widths."""
        return self.right - self.left

    def chosen(self, which: NDArray[np.bool_] | Ints) -> "Components":
        """Return some of them."""
        return Components(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


def connected_components(mask: NDArray[np.bool_]) -> Components:
    """Find the connected components.

    Shapes: mask (row, column) bool.
    """
    row, start, end = _runs(mask)
    label = connected(*_touching(row, start, end, mask.shape[1]), len(row))
    order = np.argsort(label, kind="stable")
    first = np.flatnonzero(np.diff(label[order], prepend=-1))
    row, start, end = row[order], start[order], end[order]
    if not len(row):
        empty = np.zeros(0, dtype=np.int64)
        return Components(empty, empty, empty, empty, empty, empty)
    return Components(
        top=np.minimum.reduceat(row, first),
        bottom=np.maximum.reduceat(row, first) + 1,
        left=np.minimum.reduceat(start, first),
        right=np.maximum.reduceat(end, first),
        pixels=np.add.reduceat(end - start, first),
        runs=np.diff(np.append(first, len(row))),
    )


def _runs(mask: NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), dtype=np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded, axis=1)
    row, start = np.nonzero(steps == 1)
    return row.astype(np.int64), start.astype(np.int64), np.nonzero(steps == -1)[1].astype(np.int64)


def _touching(row: Ints, start: Ints, end: Ints, columns: int) -> tuple[Ints, Ints]:
    """Return the pairs of runs in neighbouring rows that touch, also by a corner."""
    stride = columns + 2
    below = (row + 1) * stride
    first = np.searchsorted(row * stride + end, below + start, side="left")
    last = np.searchsorted(row * stride + start, below + end, side="right")
    count = np.maximum(last - first, 0)
    above = np.repeat(np.arange(len(row)), count)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return above, np.repeat(first, count) + offset


def connected(one: Ints, other: Ints, count: int) -> Ints:
    """Return for each of so many things the lowest number of those that are connected with it, over any others.

    Shapes: one and other (pair,), the numbers of two that touch; result (count,).
    """
    label = np.arange(count)
    while True:
        before = label.copy()
        lowest = np.minimum(label[one], label[other])
        np.minimum.at(label, before[one], lowest)
        np.minimum.at(label, before[other], lowest)
        label = label[label]
        if np.array_equal(label, before):
            return label
