"""A hospital's own words for a study's classes: `label_names` of site.yaml, applied to whatever carries a name.

The same table serves a word in labels.csv, a segment, an organ's contour and a voxel's value (`"255": tumour`). Case,
and space around a word, do not matter. A study's own class names need no entry. What stands for background, or for
nothing of this study, is mapped to the study's first class, or to an empty word. What is mapped to a class that this
study does not have is known to be none of its classes: another study's, or a slip of the pen.

>>> mapped = class_numbers(["background", "tumour"], {"GTV-1": "Tumour", "couch": ""})
>>> mapped["gtv-1"], mapped["tumour"], mapped["couch"]
(1, 1, 0)
>>> class_numbers(["background", "tumour"], {"2": "oedema"})["2"] == OF_NO_CLASS
True
"""

from collections.abc import Mapping, Sequence

from site_node.errors import LabelsError

BACKGROUND = 0
OF_NO_CLASS = -1
"""What the hospital named as something else: never one of the study's classes, and not known to be background."""


def folded(name: str) -> str:
    """Return a name as names are compared: without the space around and in runs, in small letters."""
    return " ".join(name.split()).casefold()


def class_numbers(classes: Sequence[str], label_names: Mapping[str, str]) -> dict[str, int]:
    """Return the number of the class that each known name stands for, the names folded.

    A local name that is given a class that this study lacks is `OF_NO_CLASS`, unless it is a class's own name, or
    differs by case only from one that is given a class of the study.
    Raises: LabelsError if one local name stands for two classes.
    """
    numbers = {folded(name): number for number, name in enumerate(classes)}
    own: dict[str, int] = {}
    elsewhere: dict[str, int] = {}
    for local, meant in label_names.items():
        number = BACKGROUND if not meant.strip() else numbers.get(folded(meant))
        if number is None:
            elsewhere[folded(local)] = OF_NO_CLASS
            continue
        if own.setdefault(folded(local), number) != number:
            raise LabelsError("label_names gives one name two meanings.", "Names that differ in case only are one.")
    return elsewhere | numbers | own
