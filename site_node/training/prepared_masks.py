"""The masks of a cohort's images, brought onto the study's grid exactly as the images are: padded and resized alike.

Nearest neighbour throughout: a class number is never mixed with another. Kept in the cache beside the images.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from protocol.study import StudySpec
from site_node.cohort.cohort import Cohort, ImageRef
from site_node.cohort.masks import digest_of_mask, mask_values
from site_node.dicom.pixels import read_pixels
from site_node.dicom.volume import stack_of
from site_node.errors import MaskError
from site_node.training.stepwise import prepared_picture_mask, prepared_volume_mask
from site_node.training.volume_picture import cubic_mask, nearest

VERSION = 1
"""Grows whenever this changes, so that cached masks of an older release are not used."""
CHANGED = "a mask is another than when the study's patients were counted"
MISSING = "an image of the study has no mask"


def prepared_masks(study: StudySpec, cohort: Cohort) -> NDArray[np.uint8]:
    """Return the masks of all images of a cohort, in their order. Shapes: result (image, *study's size).

    Raises: MaskError if one is gone, or another than was counted.
    """
    references = [image for patient in cohort.patients for image in patient.images]
    result = np.empty((len(references), *study.preprocessing.size), np.uint8)
    for number, reference in enumerate(references):
        values = _checked(reference, cohort.mask_names)
        result[number] = (
            _stepwise(study, reference, values) if study.preprocessing.steps else _drawn(study, reference, values)
        )
    return result


def on_the_grid(mask: NDArray[np.uint8], size: list[int]) -> NDArray[np.uint8]:
    """Pad a mask to a square (a cube) as `transforms.preparation` pads its image, and resize it.

    Shapes: result `size`.
    """
    edge = max(mask.shape)
    before = [(edge - length) // 2 for length in mask.shape]
    pads = [(first, edge - length - first) for first, length in zip(before, mask.shape, strict=True)]
    return nearest(np.pad(mask, pads), size)


def _checked(reference: ImageRef, names: Mapping[str, int]) -> NDArray[np.uint8]:
    if reference.mask is None:
        raise MaskError(MISSING, "Stop the study at the hub; a new study counts its patients anew.")
    values = mask_values(reference.mask, reference.path, reference.frame, reference.slices, names)
    if digest_of_mask(values) != reference.mask_digest:
        raise MaskError(CHANGED, "Stop the study at the hub; a new study counts its patients anew.")
    return values


def _drawn(study: StudySpec, reference: ImageRef, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = study.preprocessing.size
    if reference.slices:
        values = cubic_mask(values, stack_of(reference.slices), max(size))
    return on_the_grid(values, size)


def _stepwise(study: StudySpec, reference: ImageRef, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if reference.slices:
        return prepared_volume_mask(study.preprocessing, reference.slices, values, stack_of(reference.slices))
    return prepared_picture_mask(study.preprocessing, read_pixels(reference.path, reference.frame), values)
