"""From voxel numbers to millimetres, and from DICOM's axes to the ones of NIfTI: here and nowhere else.

DICOM (PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1) counts millimetres in LPS: x grows to the patient's left, y to the
back, z to the head. The voxel in column i and row j of a slice lies at

    position = ImagePositionPatient + i * spacing between columns * (first three cosines of ImageOrientationPatient)
                                    + j * spacing between rows * (last three cosines)

and PixelSpacing (PS3.3 10.7.1.3) names the spacing between rows first. NIfTI and nibabel (`nibabel.orientations`,
"RAS+") count in RAS: x grows to the right, y to the front, z to the head. So both first coordinates change their sign,
and nothing else does. As in nibabel, an affine belongs to its array: column n of the matrix is the step along axis n.
Our arrays are (slice, row, column), as a stack of pictures is.

>>> affine = lps_affine((0, 0, 0), slice_step=(0, 0, 5), row_step=(0, 2, 0), column_step=(1, 0, 0))
>>> (ras_from_lps(affine) @ [1, 1, 1, 1]).tolist()
[-1.0, -2.0, 5.0, 1.0]
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]
"""(4, 4): voxel number (slice, row, column, 1) to millimetres (x, y, z, 1)."""

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def lps_affine(
    origin: Sequence[float],
    *,
    slice_step: Sequence[float],
    row_step: Sequence[float],
    column_step: Sequence[float],
) -> Affine:
    """Return the affine of a (slice, row, column) array whose first voxel's centre lies at `origin`.

    A step is where the next slice, row or column lies from this one. Units: mm, LPS.
    """
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = slice_step, row_step, column_step, origin
    return affine


def ras_from_lps(affine: Affine) -> Affine:
    """Return the affine to RAS millimetres of what was one to LPS; the same call leads back."""
    return np.asarray(RAS_FROM_LPS @ affine, np.float64)


def spacing_of(affine: Affine) -> tuple[float, float, float]:
    """Return the distance in mm between the centres of neighbouring voxels along each axis of the array."""
    first, second, third = (float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    return first, second, third


def upright(values: NDArray[Any], affine: Affine) -> tuple[NDArray[Any], Affine]:
    """Turn a volume, by whole axes, as an axial picture is looked at, and its affine (to RAS) with it.

    Shapes: values (slice, row, column); result (from foot to head, from front to back, from right to left).
    Guarantee: no value is changed or lost, and each keeps its place in the patient; an axial CT stays as it is.
    """
    wanted = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])  # (axis of the result, RAS)
    along = wanted @ (affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))  # (axis of the result, axis of values)
    order = max(permutations(range(3)), key=lambda axes: sum(abs(along[new, old]) for new, old in enumerate(axes)))
    turned, moved = np.transpose(values, order), affine[:, [*order, 3]].copy()
    for new, old in enumerate(order):
        if along[new, old] < 0:
            moved[:3, 3] += moved[:3, new] * (turned.shape[new] - 1)
            moved[:3, new] *= -1
            turned = np.flip(turned, new)
    return turned, moved
