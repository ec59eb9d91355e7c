"""Where a picture's voxels lie, and a mask brought onto them: nearest neighbour only, and never guessed.

Convention: as in `dicom/volume.py`, arrays are (slice, row, column) and affines lead to RAS millimetres. A single
picture has the shape (row, column), and its affine is that of a volume of this one slice.

A mask drawn on other voxels is brought over by asking, for the centre of each voxel of the picture, which voxel of the
mask it lies in. Two things are refused instead of guessed: a mask that covers only a part of the picture (what it does
not cover is unknown, and not background), and a mask with marks outside the picture (it is probably another one's).
Beside a single picture's slice a series' mask has those of the other slices.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from site_node.dicom.quiet import quiet
from site_node.dicom.series import Stack
from site_node.dicom.series_plane import Plane, planes_of
from site_node.dicom.volume import stack_of
from site_node.dicom.volume_affine import Affine, lps_affine, ras_from_lps
from site_node.errors import MaskError, SeriesError

EDGE_VOXELS = 0.55
"""A centre within so much of a voxel's centre lies in it: half a voxel, and what headers' rounding makes of it."""
OUTSIDE_VOXELS = 1.5
"""A mark may lie so far from the centres at the picture's edge: half a voxel of the picture, one of a coarser mask."""
SAME_VOXELS = 1e-4
IN_SLICE = 0.1
"""Of the distance between slices: what lies further from a slice lies between two, and is refused."""
SMALLEST_VOXEL_MM3 = 1e-9
NO_PLACE = "the picture does not say where it lies, so that a mask in millimetres cannot be laid onto it"
UNCOVERED = "the mask covers only a part of the picture"
OUTSIDE = "the mask has marks outside the picture"
BETWEEN = "the mask lies between the slices of its series, or aslant to them"
OTHER_SERIES = "the mask names another series or image than this one"
OTHER_PLACES = "the mask and the picture count their places from different points of reference"
FLAT = "the mask's affine is not invertible"


@dataclass(frozen=True)
class PictureGeometry:
    """The voxels of one picture or volume, as `read_pixels` or `read_volume` gives it.

    Shapes: `shape` is (row, column) or (slice, row, column); `affine_mm` (4, 4) from (slice, row, column) to RAS mm,
        None where the header does not tell. `sop_instance_uids` (slice,) are the slices' instances as they lie,
        `frames` (slice,) their frames in them, counted from 0; all of an enhanced image's slices have one UID.
    The UIDs never leave the hospital.
    """

    shape: tuple[int, ...]
    affine_mm: Affine | None = field(default=None, compare=False)
    sop_instance_uids: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()
    series_instance_uid: str | None = None
    frame_of_reference_uid: str | None = None

    @property
    def slices_shape(self) -> tuple[int, int, int]:
        """Return the shape as (slice, row, column), of a picture with one slice."""
        first, second, third = (1, *self.shape) if len(self.shape) == 2 else self.shape
        return first, second, third

    def placed(self) -> Affine:
        """Return the affine.

        Raises: MaskError if the picture does not say where it lies.
        """
        if self.affine_mm is None:
            raise MaskError(NO_PLACE, "Give it a mask as an image file of the same size, or images with positions.")
        return self.affine_mm


def geometry_of_volume(paths: Sequence[Path], stack: Stack | None = None) -> PictureGeometry:
    """Return the geometry of the volume that `read_volume` makes of a series' files.

    Raises: SeriesError if they make none; UnreadableError if a file is no image.
    """
    stack = stack_of(paths) if stack is None else stack
    first = stack.planes[0]
    return PictureGeometry(
        shape=(len(stack.planes), first.rows, first.columns),
        affine_mm=ras_from_lps(stack.affine),
        sop_instance_uids=tuple(plane.instance for plane in stack.planes),
        frames=tuple(plane.frame for plane in stack.planes),
        series_instance_uid=_series_of(paths[first.source]),
        frame_of_reference_uid=first.frame_of_reference or None,
    )


def geometry_of_picture(path: Path, frame: int | None = None) -> PictureGeometry:
    """Return the geometry of the picture that `read_pixels` makes of a file's frame; a radiograph has no place in mm.

    Raises: MaskError if the file cannot be read.
    """
    try:
        with quiet():
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            shape = int(dataset.Rows), int(dataset.Columns)
            instance = str(dataset.get("SOPInstanceUID") or "")
            series = str(dataset.get("SeriesInstanceUID") or "") or None
            reference = str(dataset.get("FrameOfReferenceUID") or "") or None
            affine = _affine_of_slice(dataset, frame or 0)
    except Exception:  # pydicom raises whatever a damaged file leads it to, and its messages quote the header
        raise MaskError("the picture that the mask belongs to cannot be read", "Index the images again.") from None
    return PictureGeometry(shape, affine, (instance,), (frame or 0,), series, reference)


def onto_picture(mask: NDArray[Any], affine: Affine, geometry: PictureGeometry) -> NDArray[Any]:
    """Bring a mask from its own voxels onto the picture's.

    Shapes: mask (slice, row, column) or any three axes that belong to its affine (4, 4), to RAS mm; result the
        picture's `shape`.
    Guarantee: each voxel of the result has the value of the mask's voxel in which its centre lies; a mask on the same
        voxels, in whatever order and direction its axes run, keeps every value.
    Raises: MaskError if the picture has no place, or the mask covers it in part, or marks what lies outside it (of a
        single picture: in its own plane).
    """
    picture_to_mask = _inverse(affine) @ geometry.placed()
    if mask.shape == geometry.slices_shape and np.allclose(picture_to_mask, np.eye(4), atol=SAME_VOXELS):
        return mask.reshape(geometry.shape)
    indices: list[NDArray[np.intp]] = []
    for axis, (row, length) in enumerate(zip(picture_to_mask[:3], mask.shape, strict=True)):
        places = _linear(row, geometry.slices_shape)
        if places.min() < -EDGE_VOXELS or places.max() > length - 1 + EDGE_VOXELS:
            raise MaskError(UNCOVERED, "Draw it on the whole series, or name the series it was drawn on.")
        indices.append(np.clip(np.rint(places), 0, mask.shape[axis] - 1).astype(np.intp))
    _check_marks_inside(mask, _inverse(picture_to_mask), geometry)
    return np.asarray(mask[tuple(indices)]).reshape(geometry.shape)


def slice_of(points: NDArray[np.float64], geometry: PictureGeometry) -> tuple[int, NDArray[np.float64]] | None:
    """Return in which slice points lie, and their rows and columns there; None: beside all slices of the picture.

    Shapes: points (point, 3) RAS mm; result (point, 2), in voxels, not rounded.
    Raises: MaskError if the picture has no place, or they lie between two slices.
    """
    inverse = _inverse(geometry.placed())
    places = points @ inverse[:3, :3].T + inverse[:3, 3]
    number = round(float(np.median(places[:, 0])))
    inside = 0 <= number < geometry.slices_shape[0]
    if np.abs(places[:, 0] - number).max() > IN_SLICE:
        if len(geometry.shape) == 2 or not inside:  # a single picture's neighbours are not known
            return None
        raise MaskError(BETWEEN, "Export the mask on the series' own slices.")
    return (number, places[:, 1:]) if inside else None


def check_belongs(
    geometry: PictureGeometry, series: Collection[str], instances: Collection[str], frame_of_reference: str | None
) -> None:
    """Refuse a mask that says it was made of other images than this picture; what it leaves open is no reason.

    Raises: MaskError.
    """
    own = geometry.frame_of_reference_uid
    if own and frame_of_reference and own != frame_of_reference:
        raise MaskError(OTHER_PLACES, "Export the mask for the series that it was drawn on.")
    named = bool(instances) and not set(instances).isdisjoint(geometry.sop_instance_uids)
    other_series = bool(series) and geometry.series_instance_uid not in series
    other_images = bool(instances) and not named and len(geometry.shape) == 2
    if not named and (other_series or other_images):
        raise MaskError(OTHER_SERIES, "Name the mask's own series, or export it for this one.")


def _check_marks_inside(mask: NDArray[Any], mask_to_picture: Affine, geometry: PictureGeometry) -> None:
    marked = np.argwhere(mask)
    if not len(marked):
        return
    places = marked @ mask_to_picture[:3, :3].T + mask_to_picture[:3, 3]
    beyond = np.array(geometry.slices_shape) - 1 + OUTSIDE_VOXELS
    # a coarser mask's voxel sticks out by half of its own size
    reach = np.maximum(0.5 * np.abs(mask_to_picture[:3, :3]).sum(axis=1) - 0.5, 0)
    outside = (places < -OUTSIDE_VOXELS - reach) | (places > beyond + reach)
    if len(geometry.shape) == 2:  # the marks of a series' other slices lie before and behind this one
        outside[:, 0] = False
    if outside.any():
        raise MaskError(OUTSIDE, "Check to which series the mask belongs.")


def _linear(row: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.float64]:
    along = [row[axis] * np.arange(length) for axis, length in enumerate(shape)]
    return np.asarray(along[0][:, None, None] + along[1][:, None] + along[2] + row[3], np.float64)


def _inverse(affine: Affine) -> Affine:
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise MaskError(FLAT, "Export the mask anew.")
    first, second, third = affine[:3, :3].T
    if abs(first @ np.cross(second, third)) < SMALLEST_VOXEL_MM3:
        raise MaskError(FLAT, "Export the mask anew.")
    return np.asarray(np.linalg.inv(affine), np.float64)


def _affine_of_slice(dataset: pydicom.Dataset, frame: int) -> Affine | None:
    try:
        plane: Plane = planes_of(dataset)[frame]
    except (SeriesError, IndexError):
        return None
    normal = np.cross(plane.along_row, plane.down_column)
    affine = lps_affine(
        plane.position,
        slice_step=normal.tolist(),
        row_step=[part * plane.row_spacing_mm for part in plane.down_column],
        column_step=[part * plane.column_spacing_mm for part in plane.along_row],
    )
    return ras_from_lps(affine)


def _series_of(path: Path) -> str | None:
    try:
        with quiet():
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=["SeriesInstanceUID"])
            return str(dataset.get("SeriesInstanceUID") or "") or None
    except Exception:  # as above; a mask that names its series is then refused
        return None
