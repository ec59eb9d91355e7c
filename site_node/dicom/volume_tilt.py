"""A tilted gantry's volume made upright: each slice is moved back by as much as the tilt moved it.

With a tilted gantry the slices are parallel and shifted against each other: the affine is sheared, and an array that is
taken for a box shows a slanted head. A shift within the plane, linear between pixels, makes the array a box again.
What comes in from outside the slice has the volume's lowest value.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from site_node.dicom.series import TILT_FROM_DEGREES, Stack
from site_node.dicom.volume import Volume
from site_node.dicom.volume_affine import Affine, ras_from_lps


def straightened(volume: Volume) -> Volume:
    """Return a volume whose slices lie above each other; one without tilt is returned as it is.

    Guarantee: a voxel keeps its place in the patient to the interpolation; the first slice is not changed.
    """
    if volume.tilt_degrees <= TILT_FROM_DEGREES:
        return volume
    step, down, right = (volume.affine[:3, axis] for axis in range(3))
    rows, columns = (float(step @ axis / (axis @ axis)) for axis in (down, right))
    lowest = float(volume.values.min())
    values = np.stack(
        [_shifted(picture, number * rows, number * columns, lowest) for number, picture in enumerate(volume.values)]
    )
    affine = volume.affine.copy()
    affine[:3, 0] = step - rows * down - columns * right
    return replace(volume, values=values, affine=affine, tilt_degrees=0.0)


def straightened_mask(mask: NDArray[np.uint8], stack: Stack) -> tuple[NDArray[np.uint8], Affine]:
    """Move a volume's mask as `straightened` moves the volume of this stack, and return its affine (to RAS) with it.

    Shapes: mask (slice, row, column) of class numbers; result likewise.
    Guarantee: no class is mixed with another: a slice moves by parts of a pixel, and the class with most of it is kept.
    """
    affine = ras_from_lps(stack.affine)
    if stack.tilt_degrees <= TILT_FROM_DEGREES:
        return mask, affine
    parts = []
    for number in range(int(mask.max()) + 1):
        part = Volume((mask == number).astype(np.float32), affine, stack.spacing_mm, "", stack.tilt_degrees)
        straight = straightened(part)
        parts.append(straight.values)
    # outside the slice every part is 0, and the first of equals is the background
    return np.argmax(parts, axis=0).astype(np.uint8), straight.affine


def _shifted(picture: NDArray[np.float32], rows: float, columns: float, outside: float) -> NDArray[np.float32]:
    """Return what lies at (row - rows, column - columns) of a slice, for each row and column of the first slice."""
    return _along(_along(picture, rows, outside).T, columns, outside).T


def _along(picture: NDArray[np.float32], shift: float, outside: float) -> NDArray[np.float32]:
    places = np.arange(picture.shape[0]) - shift
    before = np.floor(places).astype(np.int64)
    part = (places - before).astype(np.float32)[:, None]
    padded = np.concatenate([picture, np.full_like(picture[:1], outside)])  # number -1, and the last: outside
    here, there = (np.where((at >= 0) & (at < len(picture)), at, -1) for at in (before, before + 1))
    return np.asarray(padded[here] * (1 - part) + padded[there] * part, np.float32)
