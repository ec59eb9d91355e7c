"""A mask that a hospital has of a picture, whatever file it is kept in, as class numbers on the picture's own voxels.

>>> mask = MaskRef(Path("masks/17.png"), "image", sop_instance_uid="1.2.3")       # doctest: +SKIP
>>> read_mask(mask, geometry_of_picture(path), {"background": 0, "tumour": 1})     # doctest: +SKIP
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from site_node.labels.image_file import read_image_mask
from site_node.labels.mask_geometry import PictureGeometry, geometry_of_picture, geometry_of_volume
from site_node.labels.naming import folded
from site_node.labels.nifti import read_nifti_mask
from site_node.labels.rtstruct import read_rtstruct
from site_node.labels.seg import read_seg

__all__ = ["MaskRef", "PictureGeometry", "geometry_of_picture", "geometry_of_volume", "read_mask"]

Kind = Literal["seg", "rtstruct", "nifti", "image"]
Reader = Callable[[Path, PictureGeometry, Mapping[str, int]], NDArray[np.uint8]]


@dataclass(frozen=True)
class MaskRef:
    """A mask's file, and the series or instance that it was drawn on. Never leaves the hospital."""

    path: Path
    kind: Kind
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None


READERS: Mapping[Kind, Reader] = {
    "seg": read_seg,
    "rtstruct": read_rtstruct,
    "nifti": read_nifti_mask,
    "image": read_image_mask,
}


def read_mask(mask: MaskRef, geometry: PictureGeometry, classes: Mapping[str, int]) -> NDArray[np.uint8]:
    """Read a mask as class numbers on the picture's voxels.

    `classes` holds the number of each name, the study's and the site's own (`naming.class_numbers`).
    Shapes: result as `geometry.shape`: (row, column) as `read_pixels` gives it, (slice, row, column) as
        `read_volume` does. 0 is background.
    Guarantee: nothing is interpolated, and a mask that does not fit the picture is refused.
    Raises: MaskError with the reason and a remedy, without a word of the file's or a path.
    """
    return READERS[mask.kind](mask.path, geometry, {folded(name): number for name, number in classes.items()})
