"""A series as one volume: its slices decoded in the order in which they lie, in the modality's units, with its affine.

Convention: arrays are (slice, row, column), affines lead to RAS millimetres (`volume_affine.py`). Values are rescaled,
slice by slice, as each header says; window and level are for display (`display_window.py`) and are not applied.
MONOCHROME1 is inverted within the whole volume's range, and padding takes its lowest value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from site_node.dicom.headers import checked_header
from site_node.dicom.pixels import opened, rescaled_frame
from site_node.dicom.quiet import quiet
from site_node.dicom.series import Stack, stacked
from site_node.dicom.series_plane import Plane, planes_of
from site_node.dicom.volume_affine import Affine, ras_from_lps
from site_node.errors import PixelsError, SeriesError, UnreadableError

NO_FILE = "a file of the series cannot be opened"
DAMAGED = "a header of the series cannot be read"
CHANGED = "a file of the series changed while it was read"


@dataclass(frozen=True)
class Volume:
    """A series' values and where they lie.

    Shapes: values (slice, row, column) float32, finite; affine (4, 4) from (slice, row, column) to RAS mm.
    Units: `unit` is what the values are in, as in `series_plane.Plane`. `spacing_mm` (slice, row, column) in mm, of
        slices along their normal. `tilt_degrees` as in `series.Stack`.
    """

    values: NDArray[np.float32]
    affine: Affine
    spacing_mm: tuple[float, float, float]
    unit: str
    tilt_degrees: float = 0.0


def stack_of(paths: Sequence[Path]) -> Stack:
    """Read the headers of a series' files and sort its slices; `Plane.source` is the number of a path.

    Raises: SeriesError with the reason why they make no volume; UnreadableError if a file is no image.
    """
    planes: list[Plane] = []
    for source, path in enumerate(paths):
        planes += _planes(path, source)
    return stacked(planes)


def read_volume(paths: Sequence[Path], stack: Stack | None = None) -> Volume:
    """Read a series' files, each a slice or an enhanced image of many, as one volume.

    Guarantee: the same volume, to the byte, in whatever order the files are named; one file's content is held at a
        time beside the volume.
    Raises: SeriesError with the reason why they make no volume; PixelsError if a slice cannot be decoded;
        UnreadableError if a file is no image.
    """
    stack = stack_of(paths) if stack is None else stack
    rows, columns = stack.planes[0].rows, stack.planes[0].columns
    values = np.empty((len(stack.planes), rows, columns), np.float32)
    by_source = sorted(enumerate(stack.planes), key=lambda placed: placed[1].source)
    for source, placed in groupby(by_source, key=lambda placed: placed[1].source):
        dataset = _opened(paths[source])
        for place, plane in placed:
            values[place] = _slice(dataset, plane.frame, (rows, columns))
    _fill_padding(values, inverted=stack.planes[0].inverted)
    return Volume(values, ras_from_lps(stack.affine), stack.spacing_mm, stack.planes[0].unit, stack.tilt_degrees)


def _planes(path: Path, source: int) -> list[Plane]:
    try:
        with path.open("rb") as file:
            checked_header(file, path.stat().st_size)
            file.seek(0)
            with quiet():
                dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
                return planes_of(dataset, source)
    except UnreadableError:
        raise
    except OSError:
        raise SeriesError(NO_FILE) from None
    except Exception:  # a value that its own VR forbids raises on access, whichever way it is wrong
        raise SeriesError(DAMAGED) from None


def _opened(path: Path) -> Dataset:
    try:
        content = path.read_bytes()
    except OSError:
        raise SeriesError(NO_FILE) from None
    return opened(content)


def _slice(dataset: Dataset, frame: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    values = rescaled_frame(dataset, frame)
    if values.shape != shape:
        raise SeriesError(CHANGED)
    return values


def _fill_padding(values: NDArray[np.float32], *, inverted: bool) -> None:
    padding = np.isnan(values)
    if padding.all():
        raise PixelsError("All pixels of the series are padding.", "Choose another series.")
    if inverted:
        np.subtract(np.nanmin(values) + np.nanmax(values), values, out=values)
    values[padding] = np.nanmin(values)
