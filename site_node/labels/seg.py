"""A mask as DICOM Segmentation: binary, fractional or a label map, laid onto the picture frame by frame.

Each frame says which segment it is of, and where it lies or which image it was drawn on. A frame that is not there is
empty: writers leave such frames out. Of a fractional segment (C.8.20.2.3) belongs what has at least half of the largest
value.
Source: DICOM PS3.3 A.51, C.8.20.2 and C.8.20.3; Sup 243 for label maps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from site_node.dicom.annotations import SEGMENTATION_CLASSES, AnnotationHeader, read_annotation
from site_node.dicom.functional_groups import functional_group
from site_node.dicom.pixels import frames_of, opened, stored_frames
from site_node.dicom.series_plane import Plane, planes_of
from site_node.dicom.volume_affine import RAS_FROM_LPS, Affine
from site_node.errors import MaskError, PixelsError, SeriesError
from site_node.labels.mask_geometry import OUTSIDE, PictureGeometry, check_belongs, onto_picture, slice_of
from site_node.labels.structures import classes_of_structures, code_names

UNREADABLE = "the segmentation cannot be read"
NO_SLICE = "a frame of the segmentation does not say to which slice it belongs"
OTHER_SIZE = "the segmentation has other rows and columns than its image, and no place in mm"
MOVED = "the segmentation says that it was moved against its image"
EXPORT = "Export the segmentation anew, on the series' own slices."


def read_seg(path: Path, geometry: PictureGeometry, classes: Mapping[str, int]) -> NDArray[np.uint8]:
    """Read a DICOM Segmentation as the mask of a picture or volume.

    Shapes: result as the picture.
    Raises: MaskError.
    """
    dataset, header = _opened(path)
    check_belongs(geometry, header.series, header.instances, header.frame_of_reference_uid)
    result = np.zeros(geometry.slices_shape, np.uint8)
    try:
        wanted = classes_of_structures(segment_names(dataset), classes)
        for number, values in _marks(dataset, wanted):
            _lay(values, dataset, number, geometry, result)
    except PixelsError:
        raise MaskError(UNREADABLE, EXPORT) from None
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):  # a header that lacks what it must have
        raise MaskError(UNREADABLE, EXPORT) from None
    return result.reshape(geometry.shape)


def segment_names(dataset: Dataset) -> dict[int, tuple[str, ...]]:
    """Return the names of each segment by its number: its label, its type's code and meaning."""
    names: dict[int, tuple[str, ...]] = {}
    for segment in dataset.get("SegmentSequence") or ():
        label = str(segment.get("SegmentLabel") or "")
        coded = code_names(segment.get("SegmentedPropertyTypeCodeSequence"))
        names[int(segment.SegmentNumber)] = tuple(name for name in (label, *coded) if name.strip())
    return names


def _opened(path: Path) -> tuple[Dataset, AnnotationHeader]:
    header = read_annotation(path)
    try:
        dataset = opened(path.read_bytes())
    except (OSError, PixelsError):
        raise MaskError(UNREADABLE, EXPORT) from None
    if header is None or str(dataset.get("SOPClassUID")) not in SEGMENTATION_CLASSES:
        raise MaskError(UNREADABLE, "Name a DICOM Segmentation.")
    return dataset, header


def _marks(dataset: Dataset, wanted: Mapping[int, int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield each frame of a wanted segment by its number, as class numbers."""
    kind = str(dataset.get("SegmentationType") or "BINARY")
    segments = [None if kind == "LABELMAP" else _segment_of(dataset, frame) for frame in range(frames_of(dataset))]
    meant = np.zeros(max(wanted) + 1, np.uint8)
    meant[list(wanted)] = list(wanted.values())
    for number, values in enumerate(stored_frames(dataset)):
        segment = segments[number]
        if segment is None:
            yield number, meant[np.where(values < len(meant), values, 0)]
        elif wanted.get(segment):
            yield number, np.asarray(_inside(values, dataset, kind) * np.uint8(wanted[segment]), np.uint8)


def _segment_of(dataset: Dataset, frame: int) -> int:
    group = functional_group(dataset, frame, "SegmentIdentificationSequence")
    if group is None:
        raise MaskError(UNREADABLE, EXPORT)
    return int(group.ReferencedSegmentNumber)


def _inside(values: NDArray[Any], dataset: Dataset, kind: str) -> NDArray[np.bool_]:
    if kind != "FRACTIONAL":
        return np.asarray(values != 0)
    return np.asarray(2 * values.astype(np.int64) >= int(dataset.MaximumFractionalValue))


def _lay(
    values: NDArray[np.uint8], dataset: Dataset, frame: int, geometry: PictureGeometry, result: NDArray[np.uint8]
) -> None:
    plane = _plane_of(dataset, frame) if geometry.affine_mm is not None else None
    if plane is not None:
        placed = _by_place(values, plane, geometry)
    else:
        placed = _by_reference(values, dataset, frame, geometry)
    if placed is not None:
        number, marks = placed
        np.maximum(result[number], marks, out=result[number])


def _plane_of(dataset: Dataset, frame: int) -> Plane | None:
    try:
        return planes_of(dataset)[frame]
    except SeriesError:
        return None


def _by_place(
    values: NDArray[np.uint8], plane: Plane, geometry: PictureGeometry
) -> tuple[int, NDArray[np.uint8]] | None:
    affine = _affine_of(plane, geometry.placed())
    last = np.array(values.shape) - 1
    corners = [affine @ [0, row, column, 1] for row in (0, last[0]) for column in (0, last[1])]
    found = slice_of(np.array(corners)[:, :3], geometry)
    if found is None:
        if len(geometry.shape) == 3 and values.any():
            raise MaskError(OUTSIDE, "Check to which series the segmentation belongs.")
        return None
    number, _ = found
    place = geometry.placed().copy()
    place[:3, 3] += number * place[:3, 0]
    # the frame lies in the slice, if not to the last digit: only rows and columns are looked up
    affine[:3, 3] -= place[:3, 0] * float(np.linalg.inv(place)[0] @ affine[:, 3])
    own = replace(geometry, shape=geometry.slices_shape[1:], affine_mm=place)
    return number, onto_picture(values[None], affine, own)


def _affine_of(plane: Plane, picture: Affine) -> Affine:
    affine = np.eye(4)
    affine[:3, 0] = picture[:3, 0]
    affine[:3, 1] = RAS_FROM_LPS[:3, :3] @ np.multiply(plane.down_column, plane.row_spacing_mm)
    affine[:3, 2] = RAS_FROM_LPS[:3, :3] @ np.multiply(plane.along_row, plane.column_spacing_mm)
    affine[:3, 3] = RAS_FROM_LPS[:3, :3] @ np.array(plane.position)
    return affine


def _by_reference(
    values: NDArray[np.uint8], dataset: Dataset, frame: int, geometry: PictureGeometry
) -> tuple[int, NDArray[np.uint8]] | None:
    uids, source_frame = _source_of(dataset, frame)
    frames = geometry.frames or (0,) * len(geometry.sop_instance_uids)
    alone = len(set(geometry.sop_instance_uids)) == len(geometry.sop_instance_uids)
    for number, (uid, own_frame) in enumerate(zip(geometry.sop_instance_uids, frames, strict=True)):
        if uid in uids and (alone or own_frame == source_frame):
            if values.shape != geometry.slices_shape[1:]:
                raise MaskError(OTHER_SIZE, EXPORT)
            return number, values
    if len(geometry.shape) == 2:
        return None  # of another image of the series
    raise MaskError(NO_SLICE, EXPORT)


def _source_of(dataset: Dataset, frame: int) -> tuple[set[str], int | None]:
    """Return the image that a frame was drawn on, and which of its frames, counted from 0."""
    group = functional_group(dataset, frame, "DerivationImageSequence")
    sources = list((group.get("SourceImageSequence") if group is not None else None) or ())
    if not sources:
        sources = [i for s in dataset.get("ReferencedSeriesSequence") or () for i in s.ReferencedInstanceSequence]
    if len(sources) != 1:
        raise MaskError(NO_SLICE, EXPORT)
    source: Dataset = sources[0]
    if source.get("SpatialLocationsPreserved") == "NO":
        raise MaskError(MOVED, EXPORT)
    numbers = source.get("ReferencedFrameNumber")
    first = numbers[0] if isinstance(numbers, (list, tuple)) or type(numbers).__name__ == "MultiValue" else numbers
    return {str(source.ReferencedSOPInstanceUID)}, None if first is None else int(first) - 1
