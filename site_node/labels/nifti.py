"""A mask as a NIfTI file, brought onto the picture's voxels by both affines.

NIfTI's affine leads to RAS mm (nifti1.h, "METHOD 2" and "METHOD 3"; nibabel's "RAS+"), as ours does: nothing is turned
here, `mask_geometry.onto_picture` works in millimetres. Source: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

import gzip
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from numpy.typing import NDArray

from site_node.dicom.quiet import quiet
from site_node.errors import MaskError
from site_node.labels.mask_geometry import PictureGeometry, onto_picture
from site_node.labels.voxel_values import as_classes

MOST_VOXELS = 1 << 27
FIRST_HEADER_BYTES, SECOND_HEADER_BYTES = 348, 540
"""What the first four bytes of a NIfTI-1 and a NIfTI-2 file say, in either byte order."""
BYTE_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
UNREADABLE = "the mask file cannot be read as NIfTI"
NO_PLACE = "the NIfTI file does not say where it lies (both its form codes are 0)"
SEVERAL_VOLUMES = "the NIfTI file holds several volumes, or none"
TOO_LARGE = f"the NIfTI file has more than {MOST_VOXELS} voxels, the most that is accepted"


def read_nifti_mask(path: Path, geometry: PictureGeometry, classes: Mapping[str, int]) -> NDArray[np.uint8]:
    """Read a NIfTI file as the mask of a picture or volume.

    Shapes: result as the picture.
    Raises: MaskError.
    """
    geometry.placed()
    values, affine = nifti_values(path)
    return onto_picture(as_classes(values, classes), affine, geometry)


def nifti_values(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the numbers in a NIfTI file, and its affine to RAS mm.

    Raises: MaskError.
    """
    try:
        with _silent():
            return _opened(_loaded(path))
    except MaskError:
        raise
    except Exception:  # nibabel raises whatever a damaged file leads it to
        raise MaskError(UNREADABLE, "Open it in a viewer; export it anew.") from None


def _loaded(path: Path) -> Any:
    """Return a NIfTI image of either version; the library's own loader would choose among all its formats."""
    with gzip.open(path) if path.suffix.casefold() == ".gz" else path.open("rb") as file:
        start = file.read(4)
    sizes = {int.from_bytes(start, order) for order in BYTE_ORDERS}
    if FIRST_HEADER_BYTES in sizes:
        return nibabel.Nifti1Image.from_filename(path)
    if SECOND_HEADER_BYTES in sizes:
        return nibabel.Nifti2Image.from_filename(path)
    raise MaskError(UNREADABLE, "Is it NIfTI, .nii or .nii.gz?")


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the library's log, which quotes the header, and its warnings to itself."""
    logger = logging.getLogger("nibabel.global")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with quiet():
            yield
    finally:
        logger.setLevel(before)


def _opened(image: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    header, shape = image.header, tuple(int(length) for length in image.shape)
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise MaskError(NO_PLACE, "Export it with its orientation.")
    if len(shape) < 3 or min(shape) < 1 or math.prod(shape[3:]) != 1:
        raise MaskError(SEVERAL_VOLUMES, "Give one file with one number for each voxel.")
    if math.prod(shape) > MOST_VOXELS:
        raise MaskError(TOO_LARGE, "Is it the right file?")
    return np.asarray(image.dataobj).reshape(shape[:3]), np.asarray(image.affine, np.float64)
