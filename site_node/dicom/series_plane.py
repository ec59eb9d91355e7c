"""Where each slice of an image lies in the patient, from its header: one plane for a picture, one for each frame.

Source: DICOM PS3.3 C.7.6.2 (Image Plane), C.7.6.16.2.1, 2.3 and 2.4 (Pixel Measures, Plane Position and
Plane Orientation of enhanced images), C.7.6.1.1.2 (Image Type: DERIVED), C.8.2.1.1.1 (LOCALIZER).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from site_node.dicom.functional_groups import functional_group
from site_node.errors import SeriesError

Vector = tuple[float, float, float]

NO_PLACE = "the slices do not say where they lie: position or orientation is missing or damaged"
NO_SPACING = "the slices do not say how far apart their pixels are"
UNIT_TOLERANCE = 1e-3
HOUNSFIELD, UNSPECIFIED = "HU", "US"
GREY = ("MONOCHROME1", "MONOCHROME2")
LOCALISER, DERIVED = "LOCALIZER", "DERIVED"


@dataclass(frozen=True)
class Plane:
    """Where one slice lies. `source` is the number of its file, `frame` of its frame in it.

    Units: mm, LPS. `along_row` points to the next column, `down_column` to the next row; both of length 1.
    `row_spacing_mm` is between rows, `column_spacing_mm` between columns. `unit` is what the rescaled values are in
    (Rescale Type, PS3.3 C.11.1.1.2): HU for CT, US if nothing is said; `inverted` tells that the least value is the
    brightest, `grey` that there is one value for each pixel.
    """

    source: int
    frame: int
    instance: str
    position: Vector
    along_row: Vector
    down_column: Vector
    row_spacing_mm: float
    column_spacing_mm: float
    rows: int
    columns: int
    frame_of_reference: str = ""
    localiser: bool = False
    derived: bool = False
    unit: str = UNSPECIFIED
    inverted: bool = False
    grey: bool = True


def planes_of(dataset: Dataset, source: int = 0) -> list[Plane]:
    """Return where an image's frames lie; several of them only if the image is an enhanced one.

    Raises: SeriesError if the header does not say it.
    """
    frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    return [_plane(dataset, source, frame, frames) for frame in range(frames)]


def _plane(dataset: Dataset, source: int, frame: int, frames: int) -> Plane:
    def group(name: str) -> Dataset:
        found = functional_group(dataset, frame, name)
        return found if found is not None else dataset if frames == 1 else Dataset()

    cosines = _numbers(group("PlaneOrientationSequence").get("ImageOrientationPatient"), 6, NO_PLACE)
    position = _numbers(group("PlanePositionSequence").get("ImagePositionPatient"), 3, NO_PLACE)
    spacing = _numbers(group("PixelMeasuresSequence").get("PixelSpacing"), 2, NO_SPACING)
    along_row, down_column = _directions(cosines)
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip()
    if min(spacing) <= 0:
        raise SeriesError(NO_SPACING)
    return Plane(
        source=source,
        frame=frame,
        instance=str(dataset.get("SOPInstanceUID") or ""),
        position=(position[0], position[1], position[2]),
        along_row=along_row,
        down_column=down_column,
        row_spacing_mm=spacing[0],
        column_spacing_mm=spacing[1],
        rows=int(dataset.get("Rows") or 0),
        columns=int(dataset.get("Columns") or 0),
        frame_of_reference=str(dataset.get("FrameOfReferenceUID") or ""),
        localiser=LOCALISER in _image_type(dataset),
        derived=DERIVED in _image_type(dataset)[:1],
        unit=_unit(dataset, frame),
        inverted=photometric == "MONOCHROME1",
        grey=photometric in GREY,
    )


def _unit(dataset: Dataset, frame: int) -> str:
    group = functional_group(dataset, frame, "PixelValueTransformationSequence")
    stated = (group if group is not None else dataset).get("RescaleType")
    return str(stated or (HOUNSFIELD if dataset.get("Modality") == "CT" else UNSPECIFIED)).strip().upper()


def _image_type(dataset: Dataset) -> Sequence[str]:
    value = dataset.get("ImageType")
    return [value] if isinstance(value, str) else [str(part) for part in value or ()]


def _numbers(value: Any, count: int, fault: str) -> list[float]:
    try:
        numbers = [float(part) for part in value]
    except (TypeError, ValueError):
        raise SeriesError(fault) from None
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise SeriesError(fault)
    return numbers


def _directions(cosines: Sequence[float]) -> tuple[Vector, Vector]:
    """Return both directions with length 1; the standard writes rounded decimals and demands right angles."""
    first, second = cosines[:3], cosines[3:]
    lengths = math.hypot(*first), math.hypot(*second)
    if any(abs(length - 1) > UNIT_TOLERANCE for length in lengths):
        raise SeriesError(NO_PLACE)
    if abs(sum(a * b for a, b in zip(first, second, strict=True))) > UNIT_TOLERANCE:
        raise SeriesError(NO_PLACE)
    units = [tuple(part / length for part in cosine) for cosine, length in zip((first, second), lengths, strict=True)]
    return (units[0][0], units[0][1], units[0][2]), (units[1][0], units[1][1], units[1][2])
