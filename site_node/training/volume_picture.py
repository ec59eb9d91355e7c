"""A patient's volume as the box of numbers that preparation takes: upright, in equal steps, no larger than needed.

A scan has thin rows and thick slices, and each scanner its own directions. So a volume is straightened (gantry tilt),
turned upright (from foot to head, from front to back, from right to left) and brought to cubic voxels, as fine as the
study's longest edge allows; what follows (`transforms.preparation`) is the same as for a picture. Averages over areas
(MONAI's "area"), as for pictures. Values stay in the modality's units; window and level are never applied.
"""

from collections.abc import Sequence
from pathlib import Path

import monai
import numpy as np
from monai.transforms import Resize
from numpy.typing import NDArray

from site_node.dicom.series import Stack
from site_node.dicom.volume import Volume, read_volume
from site_node.dicom.volume_affine import Affine, spacing_of, upright
from site_node.dicom.volume_tilt import straightened, straightened_mask
from site_node.training.transforms import Picture

VERSION = 1
"""Grows whenever this changes, so that cached volumes of an older release are not used."""


def read_volume_picture(paths: Sequence[Path], edge: int) -> Picture:
    """Read a series' files as a box of cubic voxels, `edge` of them along the longest side in mm.

    Shapes: result (from foot to head, from front to back, from right to left) float32.
    Raises: SeriesError, PixelsError or UnreadableError if the files make no volume any more.
    """
    return cubic(read_volume(paths), edge)


def cubic(volume: Volume, edge: int) -> Picture:
    """Bring a volume to cubic voxels.

    Guarantee: each side's number of voxels is in proportion to its length in mm, rounded, at least 1.
    """
    straight = straightened(volume)
    values, affine = upright(straight.values, straight.affine)
    shape = _cubic_shape(values.shape, affine, edge)
    monai.data.set_track_meta(False)
    resized: Picture = np.asarray(Resize(shape, mode="area")(np.ascontiguousarray(values)[None]), np.float32)
    return resized.reshape(shape)


def cubic_mask(mask: NDArray[np.uint8], stack: Stack, edge: int) -> NDArray[np.uint8]:
    """Bring a volume's mask to the voxels that `cubic` brings the volume to: each has the class at its centre.

    Shapes: mask (slice, row, column) as `read_volume` gives the volume of this stack; result as that of `cubic`.
    """
    straight, affine = straightened_mask(mask, stack)
    values, affine = upright(straight, affine)
    return nearest(values, _cubic_shape(values.shape, affine, edge))


def nearest(mask: NDArray[np.uint8], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Resize a mask: each place has the class of the place in which its centre lies. Shapes: result `shape`."""
    monai.data.set_track_meta(False)
    resize = Resize(list(shape), mode="nearest-exact")
    return np.asarray(resize(np.ascontiguousarray(mask, np.float32)[None]), np.uint8).reshape(shape)


def _cubic_shape(shape: Sequence[int], affine: Affine, edge: int) -> list[int]:
    lengths_mm = np.array(shape) * spacing_of(affine)
    return [max(1, round(float(length))) for length in lengths_mm * edge / lengths_mm.max()]
