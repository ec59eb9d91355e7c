"""Several DICOM Segmentations of one picture as one mask: one object for each organ, as many programs write them.

Each class is drawn in one of them. Objects that hold none of the study's classes are other organs, as segments within
one object are. The same class in two objects must be the same to the voxel: which of two readers is right, nobody here
can say, and two lesions of one class, an object each, look no different from that.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from site_node.dicom.quiet import quiet
from site_node.errors import MaskError
from site_node.labels.mask_geometry import PictureGeometry
from site_node.labels.naming import BACKGROUND
from site_node.labels.seg import EXPORT, UNREADABLE, read_seg, segment_names
from site_node.labels.structures import NONE_NAMED, class_of_names

DRAWN_TWICE = "several segmentations of it draw the same class, and not the same way"


def read_segs(paths: Sequence[Path], geometry: PictureGeometry, classes: Mapping[str, int]) -> NDArray[np.uint8]:
    """Read one or more DICOM Segmentations as the mask of a picture or volume.

    Shapes: result as the picture. Where two classes overlap, the later of the study's list lies on top, whichever
    object draws it.
    Guarantee: the order of the objects does not matter.
    Raises: MaskError if none holds a class of the study, one cannot be read, or two contradict each other.
    """
    if len(paths) == 1:
        return read_seg(paths[0], geometry, classes)
    drawn = {path: own for path in paths if (own := _classes_in(path, classes))}
    if not drawn:
        raise MaskError(NONE_NAMED, "Add the names to label_names of site.yaml; `wardround site check` lists them.")
    counted = Counter(number for own in drawn.values() for number in own - {BACKGROUND})
    for number in (number for number, times in counted.items() if times > 1):
        _check_agree([path for path, own in drawn.items() if number in own], number, geometry, classes)
    masks = [read_seg(path, geometry, classes) for path in drawn]
    return np.asarray(np.maximum.reduce(masks), np.uint8)


def _classes_in(path: Path, classes: Mapping[str, int]) -> frozenset[int]:
    """Return the numbers of the classes that a segmentation's segments are named as."""
    try:
        with quiet():
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SegmentSequence"])
            named = segment_names(dataset).values()
    except Exception:  # pydicom raises whatever a damaged file leads it to
        raise MaskError(UNREADABLE, EXPORT) from None
    if not named:  # cut off, and not another organ
        raise MaskError(UNREADABLE, EXPORT)
    return frozenset(number for names in named if (number := class_of_names(names, classes)) is not None)


def _check_agree(paths: Sequence[Path], number: int, geometry: PictureGeometry, classes: Mapping[str, int]) -> None:
    alone = {name: meant if meant == number else BACKGROUND for name, meant in classes.items()}
    first, *others = (read_seg(path, geometry, alone) for path in paths)
    if not all(np.array_equal(first, other) for other in others):
        raise MaskError(
            DRAWN_TWICE, "Name the one that counts in masks.csv, or export one object with both segments of the class."
        )
