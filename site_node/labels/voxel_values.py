"""The numbers in a mask file (PNG, NIfTI), turned into the study's classes.

A value is a class by the site's table of names (`"255": tumour` in `label_names`), or else by being a class's number.
A file of 0 and one other value means the only class there is, if the study has but one beside its background. Any other
value is refused: a bare number does not say what it stands for.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from site_node.errors import MaskError

UNKNOWN_VALUE = "the mask holds values that stand for no class"
NOT_WHOLE = "the mask holds numbers that are not whole"
MOST_VALUES = 256


def as_classes(values: NDArray[Any], classes: Mapping[str, int]) -> NDArray[np.uint8]:
    """Return the class number of each voxel.

    Shapes: any; the result has the same.
    Raises: MaskError if a value stands for no class.
    """
    found = np.unique(values)
    if len(found) > MOST_VALUES or not np.isfinite(found).all() or (found != np.rint(found)).any():
        raise MaskError(NOT_WHOLE, "Export the mask as class numbers, not as probabilities.")
    result = np.zeros(values.shape, np.uint8)
    for value in found:
        meaning = _meaning(int(value), found, classes)
        if meaning:
            result[values == value] = meaning
    return result


def _meaning(value: int, found: NDArray[Any], classes: Mapping[str, int]) -> int:
    named = classes.get(str(value))
    if named is not None:
        return named
    if value == 0:
        return 0
    foreground = set(classes.values()) - {0}
    if value in foreground:
        return value
    if len(foreground) == 1 and len(set(found.tolist()) - {0}) == 1:
        return next(iter(foreground))
    raise MaskError(UNKNOWN_VALUE, 'Name the value in label_names of site.yaml, as a word: "255": tumour.')
