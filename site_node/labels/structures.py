"""Named structures of a mask (segments, regions of interest), and the class that each one's names stand for.

A structure has several names: its label, its code (`SCT:10200004`), the code's meaning. The first that the study or the
site's `label_names` knows decides. Structures that neither knows are other organs, and background; a file in which none
is known is refused, because it may be another study's. So is a file where a structure's first name is given a class
that the study lacks, and another of its names one that it has. Where two classes overlap, the later of the study's list
lies on top: a tumour within its organ.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.dataset import Dataset

from site_node.errors import MaskError
from site_node.labels.naming import BACKGROUND, OF_NO_CLASS, folded

NONE_NAMED = "none of the mask's structures has a name that the study or label_names knows"
TWO_MEANINGS = "one of the mask's structures has names that stand for another class, and for one of the study's"


def classes_of_structures(names: Mapping[int, tuple[str, ...]], classes: Mapping[str, int]) -> dict[int, int]:
    """Return the class of each structure, by its number, that has one; of those mapped to background too.

    Raises: MaskError if no structure has one, or the names of one do not agree.
    """
    if any(_disagree(own, classes) for own in names.values()):
        raise MaskError(TWO_MEANINGS, "Let label_names of site.yaml give all of them one meaning.")
    known = {number: class_of_names(own, classes) for number, own in names.items()}
    found = {number: meant for number, meant in known.items() if meant is not None}
    if not found:
        raise MaskError(NONE_NAMED, "Add the names to label_names of site.yaml; `wardround site check` lists them.")
    return found


def class_of_names(names: Iterable[str], classes: Mapping[str, int]) -> int | None:
    """Return the class of the first name that has one of the study's, or None."""
    return next((number for number in _numbers(names, classes) if number != OF_NO_CLASS), None)


def code_names(codes: Any) -> list[str]:
    """Return what a code sequence's first item is called: `SCHEME:VALUE`, and the code's meaning."""
    if not codes:
        return []
    code: Dataset = codes[0]
    value = next((code.get(name) for name in ("CodeValue", "LongCodeValue", "URNCodeValue") if code.get(name)), None)
    scheme = code.get("CodingSchemeDesignator")
    names = [f"{scheme}:{value}"] if scheme and value else []
    return [*names, str(code.CodeMeaning)] if code.get("CodeMeaning") else names


def _numbers(names: Iterable[str], classes: Mapping[str, int]) -> list[int]:
    return [classes[name] for name in map(folded, names) if name in classes]


def _disagree(names: Iterable[str], classes: Mapping[str, int]) -> bool:
    numbers = _numbers(names, classes)
    return numbers[:1] == [OF_NO_CLASS] and (class_of_names(names, classes) or BACKGROUND) != BACKGROUND
