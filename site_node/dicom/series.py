"""The slices of a series in the order in which they lie in the patient, or the reason why they make no volume. Pure.

Slices are sorted along the normal of their plane (row direction x column direction) and never by InstanceNumber, which
scanners fill as they like. What is not a regular stack is refused by name: nothing is interpolated over a missing
slice, and of two pictures at one place none is picked.

Source: DICOM PS3.3 C.7.6.2.1.1 (position and orientation); the spacing between slices comes from the positions, because
SliceThickness and SpacingBetweenSlices say something else (C.7.6.2.1, C.8.3.1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from site_node.dicom.series_plane import Plane
from site_node.dicom.volume_affine import Affine, lps_affine
from site_node.errors import SeriesError

ONLY_LOCALISERS = "the series is a localiser, which is no volume"
SINGLE_SLICE = "the series has a single slice, which is no volume"
SIZES_DIFFER = "the slices have different numbers of rows or columns"
SPACINGS_DIFFER = "the slices have different distances between their pixels"
MIXED_ORIENTATIONS = "the slices lie in several orientations"
SEVERAL_FRAMES_OF_REFERENCE = "the slices are placed from several points of reference"
REPEATED_POSITIONS = "several different slices lie at one place (phases, echoes, or a repeated scan)"
IN_COLOUR = "the slices are in colour"
UNITS_DIFFER = "the slices are rescaled to different units"
MOST_VOLUME_BYTES = 1 << 31
TOO_LARGE = f"the volume takes more than {MOST_VOLUME_BYTES >> 30} GiB, the most that is accepted"
GAP = "slices are missing between others"
UNEVEN = "the slices do not lie at even distances"
NOT_IN_LINE = "the slices do not lie in one line"

ANGLE_TOLERANCE = math.cos(math.radians(0.5))
SPACING_TOLERANCE_MM = 1e-3
SAME_PLACE_MM = 1e-2
GAP_FROM = 1.5
EVEN_WITHIN = 0.05
"""Of the spacing: headers round positions, and a tenth of a millimetre is more than rounding makes of 2 mm."""
TILT_FROM_DEGREES = 0.5
VALUE_BYTES = 4


@dataclass(frozen=True)
class Stack:
    """Slices that make a volume, from the first along the normal to the last.

    Units: `spacing_mm` (slice, row, column) mm, of slices along their normal; `affine` from (slice, row, column) to LPS
        mm; `tilt_degrees` is the angle between the normal and the line of slices: 0, or that of a tilted gantry, and
        then the affine is sheared. `localisers` were left out.
    """

    planes: tuple[Plane, ...]
    spacing_mm: tuple[float, float, float]
    affine: Affine
    tilt_degrees: float
    localisers: int = 0

    @property
    def is_tilted(self) -> bool:
        """Tell whether the slices are shifted against each other, as a tilted gantry makes them."""
        return self.tilt_degrees > TILT_FROM_DEGREES


def stacked(planes: Sequence[Plane]) -> Stack:
    """Sort a series' slices by where they lie, and check that they are a regular stack.

    Guarantee: the order of the argument does not matter, but that of two copies of an instance the first one counts;
        the affine's place of each slice is its own to `EVEN_WITHIN` of the spacing.
    Raises: SeriesError with one of this file's reasons.
    """
    slices = _without_copies([plane for plane in planes if not plane.localiser])
    if not slices:
        raise SeriesError(ONLY_LOCALISERS)
    _check_alike(slices)
    if len(slices) == 1:
        raise SeriesError(SINGLE_SLICE)
    normal = np.cross(slices[0].along_row, slices[0].down_column)
    slices = sorted(slices, key=lambda plane: (float(np.dot(plane.position, normal)), plane.instance, plane.frame))
    positions = np.array([plane.position for plane in slices])
    _check_distances(positions @ normal)
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    _check_line(positions, step, normal)
    first = slices[0]
    affine = lps_affine(
        first.position,
        slice_step=step.tolist(),
        row_step=[part * first.row_spacing_mm for part in first.down_column],
        column_step=[part * first.column_spacing_mm for part in first.along_row],
    )
    along = float(step @ normal)
    sideways = float(np.linalg.norm(step - along * normal))
    return Stack(
        planes=tuple(slices),
        spacing_mm=(along, first.row_spacing_mm, first.column_spacing_mm),
        affine=affine,
        tilt_degrees=math.degrees(math.atan2(sideways, along)),
        localisers=sum(plane.localiser for plane in planes),
    )


def _without_copies(planes: Sequence[Plane]) -> list[Plane]:
    first: dict[tuple[object, ...], Plane] = {}
    for plane in planes:
        name = (plane.instance, plane.frame) if plane.instance else (plane.source, plane.frame, "nameless")
        first.setdefault(name, plane)
    return list(first.values())


def _check_alike(planes: Sequence[Plane]) -> None:
    one = planes[0]
    for plane in planes[1:]:
        if (plane.rows, plane.columns) != (one.rows, one.columns):
            raise SeriesError(SIZES_DIFFER)
        spacings = (plane.row_spacing_mm, one.row_spacing_mm), (plane.column_spacing_mm, one.column_spacing_mm)
        if any(abs(a - b) > SPACING_TOLERANCE_MM for a, b in spacings):
            raise SeriesError(SPACINGS_DIFFER)
        if min(np.dot(plane.along_row, one.along_row), np.dot(plane.down_column, one.down_column)) < ANGLE_TOLERANCE:
            raise SeriesError(MIXED_ORIENTATIONS)
    if len({plane.frame_of_reference for plane in planes}) > 1:
        raise SeriesError(SEVERAL_FRAMES_OF_REFERENCE)
    if not all(plane.grey for plane in planes):
        raise SeriesError(IN_COLOUR)
    if len({(plane.unit, plane.inverted) for plane in planes}) > 1:
        raise SeriesError(UNITS_DIFFER)
    if len(planes) * one.rows * one.columns * VALUE_BYTES > MOST_VOLUME_BYTES:
        raise SeriesError(TOO_LARGE)


def _check_distances(along: NDArray[np.float64]) -> None:
    distances = np.diff(along)
    if distances.min() < SAME_PLACE_MM:
        raise SeriesError(REPEATED_POSITIONS)
    usual = float(np.median(distances))
    if distances.max() > GAP_FROM * usual:
        raise SeriesError(GAP)
    if np.abs(distances - usual).max() > EVEN_WITHIN * usual:
        raise SeriesError(UNEVEN)


def _check_line(positions: NDArray[np.float64], step: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    off = positions - (positions[0] + np.arange(len(positions))[:, None] * step)
    tolerance = max(EVEN_WITHIN * float(np.linalg.norm(step)), SAME_PLACE_MM)
    if np.abs(off @ normal).max() > tolerance:
        raise SeriesError(UNEVEN)
    if np.linalg.norm(off, axis=1).max() > tolerance:
        raise SeriesError(NOT_IN_LINE)
