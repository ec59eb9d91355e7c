"""Named structures of a mask (segments, regions of interest), and the class that each one's names stand for.

A structure has several names: its label, its code (`SCT:10200004`), the code's meaning. The first that the study or the
site's `label_names` knows decides. Structures that neither knows are other organs, and background; a file in which none
is known is refused, because it may be another study's. Where two classes overlap, the later of the study's list lies on
top: a tumour within its organ.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.dataset import Dataset

from site_node.errors import MaskError
from site_node.labels.naming import folded

NONE_NAMED = "none of the mask's structures has a name that the study or label_names knows"


def classes_of_structures(names: Mapping[int, tuple[str, ...]], classes: Mapping[str, int]) -> dict[int, int]:
    """Return the class of each structure, by its number, that has one; of those mapped to background too.

    Raises: MaskError if no structure has one.
    """
    known = {number: class_of_names(own, classes) for number, own in names.items()}
    found = {number: meant for number, meant in known.items() if meant is not None}
    if not found:
        raise MaskError(NONE_NAMED, "Add the names to label_names of site.yaml; `wardround site check` lists them.")
    return found


def class_of_names(names: Iterable[str], classes: Mapping[str, int]) -> int | None:
    """Return the class of the first name that has one, or None."""
    return next((classes[name] for name in map(folded, names) if name in classes), None)


def code_names(codes: Any) -> list[str]:
    """Return what a code sequence's first item is called: `SCHEME:VALUE`, and the code's meaning."""
    if not codes:
        return []
    code: Dataset = codes[0]
    value = next((code.get(name) for name in ("CodeValue", "LongCodeValue", "URNCodeValue") if code.get(name)), None)
    scheme = code.get("CodingSchemeDesignator")
    names = [f"{scheme}:{value}"] if scheme and value else []
    return [*names, str(code.CodeMeaning)] if code.get("CodeMeaning") else names
