"""How much burnt-in text is found, and how often something else is taken for text.

    python -m tests.benchmarks.burnt_in_text [FOLDER ...]

Text of names, numbers and dates, in two typefaces (a bitmap one and an outline one) and four sizes, white, black or
white on a black box, is burnt into the demo's real radiographs, enlarged fourfold (to about 512 pixels). Text that does
not stand out from what it is written on by a third of the picture's range is left out: nobody could read it. In the
pictures of the folders, false alarms are counted too, by modality.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from site_node.dicom.burnt_in import text_lines
from site_node.dicom.pixel_cleaning import with_margin

DEMO = Path(__file__).parents[2] / "compose/demo/hospitals"
ENLARGED = 4
SIZES = (10, 14, 20, 32)
STYLES = ("white", "black", "box")
TEXTS = (
    "DOE JOHN",
    "Smith, Anna 12.03.1956",
    "ID 4711-0815",
    "MRN: 00123456",
    "20.11.2026 14:32",
    "F 067Y",
    "Dr. Jones",
)
LEAST_VISIBLE = 0.35
FOUND_FROM = 0.3  # a line counts as found if so much of its strokes would be blanked

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Burnt:
    """A picture with text burnt in, and where its strokes are."""

    picture: Grey
    strokes: NDArray[np.bool_]


def radiographs(most: int) -> Iterator[Grey]:
    """Yield so many of the demo's radiographs, enlarged, evenly over the hospitals."""
    paths = sorted(DEMO.rglob("*.dcm"))
    for path in paths[:: max(1, len(paths) // most)][:most]:
        small = Image.fromarray(pydicom.dcmread(path).pixel_array)
        yield np.asarray(small.resize((small.width * ENLARGED, small.height * ENLARGED), Image.Resampling.BICUBIC))


def burn(picture: Grey, text: str, size: int, style: str, generator: np.random.Generator) -> Burnt | None:
    """Write a text somewhere into a picture; None if it does not fit or could not be read."""
    font = ImageFont.load_default_imagefont() if size <= min(SIZES) else ImageFont.load_default(size)
    height, width = picture.shape
    canvas = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(canvas)
    left, top, right, bottom = (int(edge) for edge in pen.textbbox((0, 0), text, font=font))
    if right - left > width - 8 or bottom - top > height - 16:
        return None
    x, y = int(generator.integers(4, width - right + left - 3)), int(generator.integers(4, height - bottom + top - 11))
    pen.text((x - left, y - top), text, font=font, fill=255)
    cover = np.asarray(canvas, dtype=np.float32) / 255
    shade = float(picture.min() if style == "black" else picture.max())
    below = picture.astype(np.float32)
    if style == "box":
        below[y - 3 : y + bottom - top + 4, x - 3 : x + right - left + 4] = picture.min()
    strokes = cover > 0.5
    if np.abs(below[strokes] - shade).mean() < LEAST_VISIBLE * float(np.ptp(picture)):
        return None
    return Burnt((below * (1 - cover) + shade * cover).astype(np.uint8), strokes)


def covered(burnt: Burnt) -> float:
    """Return what share of the text's strokes would be blanked."""
    blank = np.zeros_like(burnt.strokes)
    for line in text_lines(burnt.picture):
        top, left, bottom, right = with_margin(line.box, blank.shape)
        blank[top:bottom, left:right] = True
    return float(blank[burnt.strokes].mean())


def shares(pictures: list[Grey], size: int, style: str, seed: int) -> list[float]:
    """Return the covered share of one text in each picture."""
    generator = np.random.default_rng((seed, size, STYLES.index(style)))
    burnt = [burn(p, TEXTS[i % len(TEXTS)], size, style, generator) for i, p in enumerate(pictures)]
    return [covered(each) for each in burnt if each is not None]


def main(folders: list[str]) -> None:
    """Print the table of docs/deidentification.md."""
    pictures = list(radiographs(120))
    alarms = sum(bool(text_lines(picture)) for picture in pictures)
    print(f"radiographs without text: {alarms} false alarms in {len(pictures)}")  # noqa: T201
    for size in SIZES:
        for style in STYLES:
            found = np.array(shares(pictures, size, style, seed=1))
            print(  # noqa: T201
                f"{size:3d} px  {style:6s} {len(found):4d} texts  found {np.mean(found >= FOUND_FROM):.0%}  "
                f"blanked whole {np.mean(found >= 0.99):.0%}  strokes blanked {found.mean():.1%}"
            )
    for folder in folders:
        _false_alarms(Path(folder))


def _false_alarms(folder: Path) -> None:
    seen: Counter[str] = Counter()
    alarmed: Counter[str] = Counter()
    for path in sorted(folder.rglob("*")):
        try:
            dataset = pydicom.dcmread(path, force=True)
            picture, modality = dataset.pixel_array, str(dataset.get("Modality") or "?")
        except Exception:  # noqa: S112 - only pictures are counted
            continue
        if picture.ndim == 2 and min(picture.shape) >= 64:
            seen[modality] += 1
            alarmed[modality] += bool(text_lines(picture))
    for modality, number in seen.most_common():
        print(f"{modality}: lines that look like text in {alarmed[modality]} of {number} pictures")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
