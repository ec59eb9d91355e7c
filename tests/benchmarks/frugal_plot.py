"""The curve of bytes against AUC as a PNG file, drawn with Pillow: no plotting library is needed for one figure."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 1080, 640
LEFT, RIGHT, TOP, BOTTOM = 110, 40, 40, 90
INK, GREY, PALE = (40, 40, 40), (150, 150, 150), (225, 225, 225)
BLUE, ORANGE, GREEN = (31, 119, 180), (214, 120, 20), (44, 140, 60)
AUC_STEP = 0.005
DOT, SMALL_DOT = 7, 4


class Axes:
    """Where a number of bytes (logarithmic) and an AUC lie on the picture."""

    def __init__(self, sizes: Sequence[float], aucs: Sequence[float]) -> None:
        self.sizes = (10 ** math.floor(math.log10(min(sizes))), 10 ** math.ceil(math.log10(max(sizes))))
        self.aucs = (math.floor(min(aucs) / AUC_STEP) * AUC_STEP, math.ceil(max(aucs) / AUC_STEP) * AUC_STEP)

    def x(self, size: float) -> float:
        """Return the column of a number of bytes."""
        low, high = (math.log10(end) for end in self.sizes)
        return LEFT + (math.log10(size) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, auc: float) -> float:
        """Return the row of an AUC."""
        low, high = self.aucs
        return HEIGHT - BOTTOM - (auc - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def draw(rows: Sequence[Mapping[str, Any]], path: Path, smaller: float, loss: float) -> None:
    """Draw each list of steps: its seeds pale, their mean dark; the first row is the update as float32."""
    whole = rows[0]
    axes = Axes(
        [row["payload_bytes"] for row in rows], [auc for row in rows for auc in (*row["aucs"], whole["auc"] - loss)]
    )
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(18)
    _grid(pen, font, axes)
    _line(pen, font, axes, whole["auc"] - loss, f"float32 less {loss:g}")
    column = axes.x(whole["payload_bytes"] / smaller)
    pen.line([(column, TOP), (column, HEIGHT - BOTTOM)], GREEN, 2)
    pen.text((column + 6, TOP + 2), f"{smaller:g} times smaller", GREEN, font)
    for row in rows:
        x = axes.x(row["payload_bytes"])
        for auc in row["aucs"]:
            _dot(pen, x, axes.y(auc), SMALL_DOT, GREY)
        _dot(pen, x, axes.y(row["auc"]), DOT, BLUE)
        end = x > WIDTH - 150
        pen.text(
            (x - 10 if end else x + 10, axes.y(row["auc"]) + 8), row["steps"], INK, font, anchor="ra" if end else "la"
        )
    image.save(path, optimize=True)


def _grid(pen: ImageDraw.ImageDraw, font: Any, axes: Axes) -> None:
    size = axes.sizes[0]
    while size <= axes.sizes[1]:
        pen.line([(axes.x(size), TOP), (axes.x(size), HEIGHT - BOTTOM)], PALE, 1)
        pen.text((axes.x(size), HEIGHT - BOTTOM + 10), f"{size:,}", INK, font, anchor="ma")
        size *= 10
    for step in range(round((axes.aucs[1] - axes.aucs[0]) / AUC_STEP) + 1):
        auc = axes.aucs[0] + step * AUC_STEP
        pen.line([(LEFT, axes.y(auc)), (WIDTH - RIGHT, axes.y(auc))], PALE, 1)
        pen.text((LEFT - 12, axes.y(auc)), f"{auc:.3f}", INK, font, anchor="rm")
    pen.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 36), "bytes of an update", INK, font, anchor="ma")
    pen.text((16, 10), "AUC, pooled validation", INK, font)


def _line(pen: ImageDraw.ImageDraw, font: Any, axes: Axes, auc: float, words: str) -> None:
    pen.line([(LEFT, axes.y(auc)), (WIDTH - RIGHT, axes.y(auc))], ORANGE, 2)
    pen.text((WIDTH - RIGHT, axes.y(auc) + 4), words, ORANGE, font, anchor="ra")


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, radius: int, colour: tuple[int, int, int]) -> None:
    pen.ellipse([(x - radius, y - radius), (x + radius, y + radius)], fill=colour)
