"""Find text that is burnt into a picture: rows of small, sharp marks of one height on one line.

Source: stroke-like pixels by the top-hat transform (Serra 1982; Meyer 1979), letters as connected components and lines
of text by their alignment (Wong, Casey and Wahl 1982, IBM J. Research and Development 26(6); Fletcher and Kasturi 1988,
IEEE TPAMI 10(6)). No text is read: what it says does not matter.
Convention: boxes are (top, left, bottom, right) in pixels, the last two excluded.

What it finds and misses is measured in docs/deidentification.md. It is a help for the person who looks, not a proof.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from site_node.dicom.connected_components import Components, connected, connected_components

Box = tuple[int, int, int, int]
Grey = NDArray[np.uint8]
STROKE_WINDOWS = (5, 11)  # pixels: strokes narrower than this stand out, edges of organs do not
LEAST_CONTRAST = 64  # of 255: between a stroke and what surrounds it
TILE, ABOVE_NOISE = 32, 3.0  # pixels; times the median height of a tile
LEAST_HEIGHT, MOST_HEIGHT = 5, 64  # pixels, of a letter
LEAST_LETTERS = 3
MOST_UNEVEN = 24  # of 255: the brighter part of a line's strokes is of one shade, other than bone or brain
MOST_LETTERS = 6000  # candidates; a picture of more is noise
BLOCK = 500


@dataclass(frozen=True)
class TextLine:
    """A line of what looks like text."""

    box: Box
    letters: int


def text_lines(picture: NDArray[np.generic]) -> list[TextLine]:
    """Return the lines of text in one frame, bright on dark and dark on bright.

    Shapes: picture (row, column) or (row, column, colour), any number type.
    """
    values = _brightest(picture)
    grey, evenness = _spread(values), _evenness(values)
    lines: list[TextLine] = []
    for shades, shown in ((grey, evenness), (255 - grey, 255 - evenness)):
        for window in STROKE_WINDOWS:
            lines += _lines(_strokes(shades, window), shown)
    return _merged(lines)


def _brightest(picture: NDArray[np.generic]) -> NDArray[np.float32]:
    values = picture.astype(np.float32)
    return np.asarray(values[..., :3].max(axis=2) if values.ndim == 3 else values)


def _spread(values: NDArray[np.float32]) -> Grey:
    """Spread a picture over 0 to 255 with its extremes cut off, so that one bright spot does not make the rest dark."""
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    least, most = float(values.min()), float(values.max())
    if high - low < 0.1 * (most - least):  # nearly all of the picture is one shade
        low, high = least, most
    return _scaled(values, low, high)


def _evenness(values: NDArray[np.float32]) -> Grey:
    """Spread a picture with its extremes: what was cut off above would look even."""
    return _scaled(values, float(values.min()), float(values.max()))


def _scaled(values: NDArray[np.float32], low: float, high: float) -> Grey:
    spread = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return np.asarray(np.clip(spread, 0, 255), dtype=np.uint8)


def _strokes(grey: Grey, window: int) -> NDArray[np.bool_]:
    opened = _slid(_slid(grey, window, np.minimum), window, np.maximum)
    height = grey - opened
    return np.asarray((height >= LEAST_CONTRAST) & (height >= ABOVE_NOISE * _noise(height)))


def _noise(height: Grey) -> NDArray[np.float32]:
    """Return how high the ordinary pixels around each one stand: speckle and grain, but no strokes, which are fewer."""
    rows, columns = height.shape
    padded = np.pad(height, [(0, -rows % TILE), (0, -columns % TILE)], mode="edge")
    tiles = padded.reshape(padded.shape[0] // TILE, TILE, padded.shape[1] // TILE, TILE)
    ordinary = np.median(tiles, axis=(1, 3)).astype(np.float32)
    spread: NDArray[np.float32] = ordinary.repeat(TILE, axis=0).repeat(TILE, axis=1)
    return spread[:rows, :columns]


def _slid(grey: Grey, window: int, extreme: np.ufunc) -> Grey:
    """Return each pixel's extreme over a square window around it."""
    for axis in (0, 1):
        half = window // 2
        padding = [(half, half) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(grey, padding, mode="edge")
        length = grey.shape[axis]
        grey = padded.take(range(length), axis=axis)
        for shift in range(1, window):
            grey = extreme(grey, padded[shift : shift + length] if axis == 0 else padded[:, shift : shift + length])
    return grey


def _lines(strokes: NDArray[np.bool_], shades: Grey) -> list[TextLine]:
    found = connected_components(strokes)
    letters = found.chosen(_like_letters(found))
    if not _letters_in(letters) >= LEAST_LETTERS or len(letters) > MOST_LETTERS:
        return []
    group = _groups(letters)
    lines = []
    for name in np.unique(group):
        line = letters.chosen(np.flatnonzero(group == name))
        if _is_text(line, strokes, shades):
            box = (int(line.top.min()), int(line.left.min()), int(line.bottom.max()), int(line.right.max()))
            lines.append(TextLine(box, _letters_in(line)))
    return lines


def _like_letters(found: Components) -> NDArray[np.bool_]:
    height, width = found.height, found.width
    filled = found.pixels / (height * width)
    runs_a_row = found.runs / height
    single = (width <= 1.7 * height + 2) & (found.runs <= 4 * height)
    several = (width > 1.7 * height + 2) & (width <= 40 * height) & (runs_a_row >= 2)  # letters that touch
    return (height >= LEAST_HEIGHT) & (height <= MOST_HEIGHT) & (single | several) & (filled >= 0.12)


def _letters_in(line: Components) -> int:
    """Count letters; one wide mark is as many as would stand side by side in it."""
    wide = line.width > 1.7 * line.height + 2
    return int(np.where(wide, line.width / np.maximum(0.7 * line.height, 1), 1).sum())


def _groups(letters: Components) -> NDArray[np.int64]:
    """Return for each letter the name of its line: neighbours of like height, side by side on one level."""
    count = len(letters)
    pairs = [_neighbours(letters, first, min(first + BLOCK, count)) for first in range(0, count, BLOCK)]
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return connected(one, other, count)


def _neighbours(letters: Components, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    a, b = letters.chosen(np.arange(first, last)), letters
    height_a, height_b = a.height[:, None], b.height[None, :]
    shorter, taller = np.minimum(height_a, height_b), np.maximum(height_a, height_b)
    shared = np.minimum(a.bottom[:, None], b.bottom[None, :]) - np.maximum(a.top[:, None], b.top[None, :])
    gap = np.maximum(a.left[:, None], b.left[None, :]) - np.minimum(a.right[:, None], b.right[None, :])
    near = (shared >= 0.6 * shorter) & (taller <= 2 * shorter) & (gap <= 1.5 * taller)
    one, other = np.nonzero(near)
    return one + first, other


def _is_text(line: Components, strokes: NDArray[np.bool_], shades: Grey) -> bool:
    if _letters_in(line) < LEAST_LETTERS:
        return False
    height = float(np.median(line.height))
    level = np.abs(line.bottom - np.median(line.bottom)) <= max(1.0, 0.2 * height)
    if level.mean() < 0.6:
        return False
    top, bottom = int(line.top.min()), int(line.bottom.max())
    left, right = int(line.left.min()), int(line.right.max())
    if bottom - top > 2.2 * height or right - left < 1.2 * height:
        return False
    marked = strokes[top:bottom, left:right]
    inside = shades[top:bottom, left:right][marked]
    low, high = np.percentile(inside, (70, 95))
    return bool(0.08 <= marked.mean() <= 0.7 and high - low <= MOST_UNEVEN)


def _merged(lines: list[TextLine]) -> list[TextLine]:
    """Join lines that overlap, found at different widths of stroke."""
    merged: list[TextLine] = []
    for line in sorted(lines, key=lambda entry: entry.box):
        touching = [other for other in merged if _overlap(other.box, line.box)]
        for other in touching:
            merged.remove(other)
            line = TextLine(_around(other.box, line.box), max(other.letters, line.letters))
        merged.append(line)
    return merged


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _around(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
