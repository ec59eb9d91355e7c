"""The numbers in a mask file (PNG, NIfTI), turned into the study's classes.

A value is a class by the site's table of names (`"255": tumour` in `label_names`), or else by being a class's number.
What the table names as something that the study does not learn is refused, whatever its number. If a study has but one
class beside its background, and all mask files of the cohort hold the same single value beside theirs, this value is
that class. Any other is refused: a bare number does not say what it stands for.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from site_node.errors import MaskError, UnknownValueError
from site_node.labels.naming import BACKGROUND, OF_NO_CLASS

UNKNOWN_VALUE = "the mask holds values that stand for no class"
NOT_WHOLE = "the mask holds numbers that are not whole"
NAME_IT = 'Name each value in label_names of site.yaml, as a word: "255": tumour; `wardround site check` lists them.'
MOST_VALUES = 256


def as_classes(values: NDArray[Any], classes: Mapping[str, int]) -> NDArray[np.uint8]:
    """Return the class number of each voxel.

    Shapes: any; the result has the same.
    Raises: UnknownValueError if a value stands for no class; MaskError if the values are no classes' numbers.
    """
    meanings = {value: class_of_value(value, classes) for value in whole_values(values)}
    result = np.zeros(values.shape, np.uint8)
    for value, meaning in meanings.items():
        if meaning is None:
            marks = frozenset(value for value, meaning in meanings.items() if meaning != BACKGROUND)
            raise UnknownValueError(UNKNOWN_VALUE, NAME_IT, marks)
        if meaning:
            result[values == value] = meaning
    return result


def whole_values(values: NDArray[Any]) -> list[int]:
    """Return which values there are.

    Raises: MaskError if they are no classes' numbers.
    """
    found = np.unique(values)
    if len(found) > MOST_VALUES or not np.isfinite(found).all() or (found != np.rint(found)).any():
        raise MaskError(NOT_WHOLE, "Export the mask as class numbers, not as probabilities.")
    return [int(value) for value in found]


def class_of_value(value: int, classes: Mapping[str, int]) -> int | None:
    """Return the class that a value stands for, or None."""
    named = classes.get(str(value))
    if named is not None:
        return None if named == OF_NO_CLASS else named
    return value if value == BACKGROUND or value in _foreground(classes) else None


def only_value_named(classes: Mapping[str, int], marks: Collection[int]) -> dict[str, int]:
    """Return the names, and the only value that all of a cohort's mask files hold as the name of the only class.

    `marks` are the values of all the files that are not background.
    """
    foreground = _foreground(classes)
    if len(foreground) == len(marks) == 1:
        return {str(*marks): next(iter(foreground)), **classes}
    return dict(classes)


def _foreground(classes: Mapping[str, int]) -> set[int]:
    return set(classes.values()) - {BACKGROUND, OF_NO_CLASS}
