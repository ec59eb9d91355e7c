"""The curves of AUC by version as a PNG file, drawn with Pillow: no plotting library is needed for one figure.

Good models differ in what is left of the way to 1, so that is what the vertical axis shows, in decades.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 1080, 680
LEFT, RIGHT, TOP, BOTTOM = 90, 250, 50, 80
INK, PALE = (40, 40, 40), (225, 225, 225)
COLOURS = (
    *((31, 119, 180), (214, 120, 20), (44, 140, 60), (190, 40, 50)),
    *((128, 90, 180), (130, 90, 70), (210, 90, 170), (90, 90, 90)),
)
TICKS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998)
LEAST_LEFT = 1e-4
"""An AUC of 1 lies nowhere on a logarithmic axis."""
LOWEST_AUC = 0.94
"""A first version may be near 0.5; what is below this lies on the lower edge, so that the last ones stay apart."""
LABEL_ROOM = 26


class Axes:
    """Where a version and its AUC lie on the picture."""

    def __init__(self, versions: int, aucs: Sequence[float]) -> None:
        self.versions = versions
        best, worst = _left(max(aucs)), _left(max(min(aucs), LOWEST_AUC))
        self.ends = (math.log10(best) - 0.05, max(math.log10(worst), math.log10(best)) + 0.05)

    def x(self, version: int) -> float:
        """Return the column of a version, the first of which is 1."""
        return LEFT + (version - 1) / max(1, self.versions - 1) * (WIDTH - LEFT - RIGHT)

    def y(self, auc: float) -> float:
        """Return the row of an AUC."""
        best, worst = self.ends
        down = min(1.0, (math.log10(_left(auc)) - best) / (worst - best))
        return TOP + down * (HEIGHT - TOP - BOTTOM)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw each variant's mean curve over its seeds, and the seeds' last AUC as small dots."""
    curves = [mean_curve(row["curves"]) for row in rows]
    shown = [auc for row, curve in zip(rows, curves, strict=True) for auc in (*curve, *row["aucs"])]
    axes = Axes(max(map(len, curves)), shown)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(18)
    _grid(pen, font, axes)
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        points = [(axes.x(version), axes.y(auc)) for version, auc in enumerate(curve, start=1)]
        pen.line(points, colour, 3, joint="curve")
        for x, y in points:
            pen.ellipse([(x - 4, y - 4), (x + 4, y + 4)], fill=colour)
        for auc in rows[number]["aucs"]:
            x, y = axes.x(len(curve)) + 10, axes.y(auc)
            pen.ellipse([(x - 2, y - 2), (x + 2, y + 2)], fill=colour)
    _names(pen, font, axes, rows, curves)
    image.save(path, optimize=True)


def mean_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of curves at each version that all of them have.

    >>> mean_curve([[0.5, 1.0], [1.0, 1.0, 1.0]])
    [0.75, 1.0]
    """
    return [mean(aucs) for aucs in zip(*curves, strict=False)]


def spread_apart(rows: Sequence[float], room: float) -> list[float]:
    """Return rows in the same order of height, each at least `room` below the one above it.

    >>> spread_apart([10.0, 11.0, 5.0], room=4)
    [10.0, 14.0, 5.0]
    """
    placed = list(rows)
    above = -math.inf
    for index in sorted(range(len(rows)), key=rows.__getitem__):
        placed[index] = above = max(rows[index], above + room)
    return placed


def _left(auc: float) -> float:
    return max(1.0 - auc, LEAST_LEFT)


def _grid(pen: ImageDraw.ImageDraw, font: Any, axes: Axes) -> None:
    for auc in TICKS:
        if TOP <= axes.y(auc) < HEIGHT - BOTTOM:
            pen.line([(LEFT, axes.y(auc)), (WIDTH - RIGHT, axes.y(auc))], PALE, 1)
            pen.text((LEFT - 12, axes.y(auc)), f"{auc:g}", INK, font, anchor="rm")
    for version in range(1, axes.versions + 1):
        pen.line([(axes.x(version), TOP), (axes.x(version), HEIGHT - BOTTOM)], PALE, 1)
        pen.text((axes.x(version), HEIGHT - BOTTOM + 10), str(version), INK, font, anchor="ma")
    pen.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 36), "version", INK, font, anchor="ma")
    pen.text((16, 12), "AUC, pooled validation", INK, font)


def _names(
    pen: ImageDraw.ImageDraw,
    font: Any,
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    curves: Sequence[Sequence[float]],
) -> None:
    heights = spread_apart([axes.y(curve[-1]) for curve in curves], LABEL_ROOM)
    for number, (row, curve, height) in enumerate(zip(rows, curves, heights, strict=True)):
        text = f"{row['variant']}: {curve[-1]:.3f}"
        pen.text((WIDTH - RIGHT + 24, height), text, COLOURS[number % len(COLOURS)], font, anchor="lm")
