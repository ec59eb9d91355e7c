"""A mask as a picture file (PNG, TIFF or BMP) of the same rows and columns as its image.

Such a file says nothing of millimetres: it fits by its size alone, and only by exactly the same.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from site_node.errors import MaskError
from site_node.labels.mask_geometry import PictureGeometry
from site_node.labels.voxel_values import as_classes

VOLUME = "a picture file cannot be the mask of a volume"
OTHER_SIZE = "the mask has other rows and columns than its image"
UNREADABLE = "the mask file cannot be read as a picture"
IN_COLOUR = "the mask file is in colour"
FORMATS = ("PNG", "TIFF", "BMP")
"""Pillow knows fifty more, some of which start other programs to read a file."""
GREY_MODES = frozenset({"1", "L", "P", "I", "I;16", "I;16L", "I;16B"})


def read_image_mask(path: Path, geometry: PictureGeometry, classes: Mapping[str, int]) -> NDArray[np.uint8]:
    """Read a picture file as the mask of a picture.

    Shapes: result (row, column).
    Guarantee: a file of another size is refused before it is decoded. A palette's numbers count, not its colours.
    Raises: MaskError.
    """
    if len(geometry.shape) != 2:
        raise MaskError(VOLUME, "Give DICOM SEG, RTSTRUCT or NIfTI.")
    return as_classes(picture_values(path, geometry.shape), classes)


def picture_values(path: Path, shape: tuple[int, ...] | None = None) -> NDArray[np.int64]:
    """Return the numbers in a picture file, which has to be of this shape where one is given.

    Shapes: result (row, column).
    Raises: MaskError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as picture:
                return _decoded(picture, shape)
    except MaskError:
        raise
    except Exception:  # Pillow raises whatever a damaged file leads it to
        raise MaskError(UNREADABLE, "Open it in a viewer; save it as PNG, in grey.") from None


def _decoded(picture: Image.Image, shape: tuple[int, ...] | None) -> NDArray[np.int64]:
    columns, rows = picture.size
    if shape is not None and (rows, columns) != shape:
        raise MaskError(OTHER_SIZE, "Draw the mask on the image as it is stored; it is not scaled here.")
    if picture.mode in GREY_MODES:
        return np.asarray(picture).astype(np.int64)
    channels = np.asarray(picture.convert("RGB")).astype(np.int64)
    if (channels != channels[..., :1]).any():
        raise MaskError(IN_COLOUR, "Save it in grey, with one number for each class.")
    return channels[..., 0]
