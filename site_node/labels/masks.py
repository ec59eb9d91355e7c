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

from site_node.errors import MaskError
from site_node.labels.image_file import picture_values, read_image_mask
from site_node.labels.mask_geometry import PictureGeometry, geometry_of_picture, geometry_of_volume
from site_node.labels.naming import folded
from site_node.labels.nifti import nifti_values, read_nifti_mask
from site_node.labels.rtstruct import read_rtstruct
from site_node.labels.seg import read_seg
from site_node.labels.seg_set import read_segs
from site_node.labels.voxel_values import whole_values

__all__ = ["MaskRef", "PictureGeometry", "geometry_of_picture", "geometry_of_volume", "read_mask"]

Kind = Literal["seg", "rtstruct", "nifti", "image"]
KINDS_OF_VALUES: tuple[Kind, ...] = ("nifti", "image")
"""Those whose files hold bare numbers."""
MISSING = "the mask file is missing"
Reader = Callable[[Path, PictureGeometry, Mapping[str, int]], NDArray[np.uint8]]


@dataclass(frozen=True)
class MaskRef:
    """A mask's file, and the series or instance that it was drawn on. Never leaves the hospital.

    `beside`: further segmentations (DICOM SEG) of the same picture, one for each organ.
    """

    path: Path
    kind: Kind
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    beside: tuple[Path, ...] = ()


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
    known = {folded(name): number for name, number in classes.items()}
    for path in (mask.path, *mask.beside):
        check_is_there(path)
    if mask.beside:
        return read_segs((mask.path, *mask.beside), geometry, known)
    return READERS[mask.kind](mask.path, geometry, known)


def values_in(mask: MaskRef) -> list[int]:
    """Return the values that a file of bare numbers holds; none of another kind of file.

    Raises: MaskError if it cannot be read.
    """
    if mask.kind not in KINDS_OF_VALUES:
        return []
    check_is_there(mask.path)
    return whole_values(picture_values(mask.path) if mask.kind == "image" else nifti_values(mask.path)[0])


def check_is_there(path: Path) -> None:
    """Refuse a mask of which there is no file.

    Raises: MaskError.
    """
    if not path.exists():
        raise MaskError(MISSING, "Put it where masks.csv says, or correct the row; or run `wardround site index`.")
