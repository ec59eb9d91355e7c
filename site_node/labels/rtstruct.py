"""A mask as a radiotherapy structure set: closed planar contours in mm, filled slice by slice.

Nothing is filled in between: a slice without a contour is empty, and a structure drawn on every second one is refused.
So is a class whose structure is not made of closed planar contours alone (points, open lines).
Source: DICOM PS3.3 C.8.8.5 (Structure Set), C.8.8.6 (ROI Contour; coordinates in LPS mm, C.8.8.6.3), C.8.8.8 (RT ROI
Observations).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from site_node.dicom.annotations import MOST_ANNOTATION_BYTES, STRUCTURE_SET_CLASS, read_annotation
from site_node.dicom.deflated import check_inflated_size
from site_node.dicom.quiet import quiet
from site_node.dicom.volume_affine import RAS_FROM_LPS
from site_node.errors import MaskError
from site_node.labels.mask_geometry import (
    BETWEEN,
    OTHER_SERIES,
    OUTSIDE,
    OUTSIDE_VOXELS,
    PictureGeometry,
    check_belongs,
    slice_of,
)
from site_node.labels.polygon import filled
from site_node.labels.structures import classes_of_structures, code_names

CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
UNREADABLE = "the structure set cannot be read"
EVERY_OTHER = "a structure of the study is drawn on every second slice only, or fewer"
FEWEST_STEPS = 2
NOT_CLOSED = "a structure of the study is drawn as points or open lines, which have no inside"
EXPORT = "Export the structure set anew, for the series that it was drawn on."


def read_rtstruct(path: Path, geometry: PictureGeometry, classes: Mapping[str, int]) -> NDArray[np.uint8]:
    """Read a structure set as the mask of a picture or volume.

    Shapes: result as the picture.
    Guarantee: a pixel belongs to a structure if its centre lies within an odd number of its contours on that slice.
    Raises: MaskError.
    """
    header, dataset = read_annotation(path), opened_structure_set(path)
    geometry.placed()
    if header is None:
        raise MaskError(UNREADABLE, EXPORT)
    check_belongs(geometry, header.series, (), header.frame_of_reference_uid)
    result = np.zeros(geometry.slices_shape, np.uint8)
    try:
        wanted = classes_of_structures(structure_names(dataset), classes)
        for number, meant in sorted(wanted.items(), key=lambda one: one[1]):
            for at, contours in _contours_by_slice(dataset, number, geometry).items() if meant else ():
                result[at][filled(contours, geometry.slices_shape[1:])] = meant
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):  # a header that lacks what it must have
        raise MaskError(UNREADABLE, EXPORT) from None
    return result.reshape(geometry.shape)


def opened_structure_set(path: Path) -> Dataset:
    """Open a structure set.

    Raises: MaskError if the file is none.
    """
    try:
        with quiet():
            if path.stat().st_size > MOST_ANNOTATION_BYTES:
                raise MaskError(UNREADABLE, "Is it the right file?")
            with path.open("rb") as file:
                check_inflated_size(file)
                file.seek(0)
                dataset = pydicom.dcmread(file, force=True)
            is_one = str(dataset.get("SOPClassUID") or "") == STRUCTURE_SET_CLASS
    except MaskError:
        raise
    except Exception:  # pydicom raises whatever a damaged file leads it to
        is_one = False
    if not is_one:
        raise MaskError(UNREADABLE, EXPORT)
    return dataset


def structure_names(dataset: Dataset) -> dict[int, tuple[str, ...]]:
    """Return the names of each structure by its number: its name, its observation's label, code and meaning."""
    observed: defaultdict[int, list[str]] = defaultdict(list)
    for observation in dataset.get("RTROIObservationsSequence") or ():
        label = str(observation.get("ROIObservationLabel") or "")
        coded = code_names(observation.get("RTROIIdentificationCodeSequence"))
        observed[int(observation.ReferencedROINumber)] += [label, *coded]
    names: dict[int, tuple[str, ...]] = {}
    for structure in dataset.get("StructureSetROISequence") or ():
        number = int(structure.ROINumber)
        own = (str(structure.get("ROIName") or ""), *observed[number])
        names[number] = tuple(name for name in own if name.strip())
    return names


def _contours_by_slice(
    dataset: Dataset, structure: int, geometry: PictureGeometry
) -> dict[int, list[NDArray[np.float64]]]:
    found: defaultdict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for contour in _contours(dataset, structure):
        points = np.array(contour.ContourData, np.float64).reshape(-1, 3) @ RAS_FROM_LPS[:3, :3]
        if not np.isfinite(points).all():
            raise MaskError(UNREADABLE, EXPORT)
        placed = slice_of(points, geometry)
        if placed is None:
            if len(geometry.shape) == 2:
                continue  # of another image of the series
            raise MaskError(OUTSIDE, EXPORT)
        number, corners = placed
        _check_image(contour, geometry, number)
        beyond = np.array(geometry.slices_shape[1:]) - 1 + OUTSIDE_VOXELS
        if (corners < -OUTSIDE_VOXELS).any() or (corners > beyond).any():
            raise MaskError(OUTSIDE, EXPORT)
        found[number].append(corners)
    if len(geometry.shape) == 3:
        _check_is_whole(sorted(found))
    return found


def _check_is_whole(slices: Sequence[int]) -> None:
    """Refuse a structure that was drawn on every second slice, or every third: between them it is not empty."""
    steps = np.diff(slices)
    if len(steps) >= FEWEST_STEPS and steps.min() > 1 and steps.min() == steps.max():
        raise MaskError(EVERY_OTHER, "Let the drawing program fill the slices between, and export it anew.")


def _contours(dataset: Dataset, structure: int) -> Iterator[Dataset]:
    for drawn in dataset.get("ROIContourSequence") or ():
        if int(drawn.ReferencedROINumber) != structure:
            continue
        for contour in drawn.get("ContourSequence") or ():
            if str(contour.get("ContourGeometricType") or "") not in CLOSED:
                raise MaskError(NOT_CLOSED, "Map the structure to background in label_names, or draw it anew.")
            yield contour


def _check_image(contour: Dataset, geometry: PictureGeometry, number: int) -> None:
    """Refuse a contour that names one slice and lies on another."""
    named = {str(image.ReferencedSOPInstanceUID) for image in contour.get("ContourImageSequence") or ()}
    own = geometry.sop_instance_uids
    if not named or not own:
        return
    if named.isdisjoint(own):
        raise MaskError(OTHER_SERIES, EXPORT)
    if own[number] not in named:
        raise MaskError(BETWEEN, EXPORT)
