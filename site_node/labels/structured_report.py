"""What a DICOM structured report says about one concept: the words that its values go by.

The tree of content items is walked whole. An item counts if its concept name is the one asked for, by its code
(`DCM:121071`) or its meaning. Its value is a code (which goes by `SCHEME:VALUE`, then by its meaning), a text or a
number. A report that is not complete does not count, nor one that a later report of the same hospital replaces.
Source: DICOM PS3.3 C.17.2 (SR Document General), C.17.3 (content tree).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from site_node.dicom.deflated import check_inflated_size
from site_node.dicom.quiet import quiet
from site_node.labels.naming import folded
from site_node.labels.structures import code_names

MOST_REPORT_BYTES = 1 << 26
DEEPEST = 64
PARTIAL = "PARTIAL"


@dataclass(frozen=True)
class Report:
    """The content of a report: its values by concept, and which reports it replaces. Never leaves the hospital.

    `values` are (names of the concept, names of the value), in the order of the tree, the names folded or as written.
    """

    values: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    replaces: frozenset[str]
    complete: bool

    def said_of(self, concept: str) -> list[tuple[str, ...]]:
        """Return the values of a concept, each by its names; each once."""
        wanted = folded(concept)
        found = (value for concepts, value in self.values if wanted in map(folded, concepts))
        return list(dict.fromkeys(found))


def read_report(path: Path) -> Report | None:
    """Read a report; None if the file is none, or is damaged. Never raises."""
    try:
        if path.stat().st_size > MOST_REPORT_BYTES:
            return None
        with quiet(), path.open("rb") as file:
            check_inflated_size(file)
            file.seek(0)
            dataset = pydicom.dcmread(file, force=True, stop_before_pixels=True)
            return Report(
                values=tuple(_values(dataset, 0)),
                replaces=frozenset(_replaced(dataset)),
                complete=str(dataset.get("CompletionFlag") or "") != PARTIAL,
            )
    except Exception:  # pydicom raises whatever a damaged file leads it to
        return None


def _values(item: Dataset, depth: int) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    if depth > DEEPEST:
        return
    for child in item.get("ContentSequence") or ():
        concept, value = code_names(child.get("ConceptNameCodeSequence")), _value(child)
        if concept and value:
            yield tuple(concept), tuple(value)
        yield from _values(child, depth + 1)


def _value(item: Dataset) -> list[str]:
    kind = str(item.get("ValueType") or "")
    if kind == "CODE":
        return code_names(item.get("ConceptCodeSequence"))
    if kind == "TEXT":
        return [text] if (text := str(item.get("TextValue") or "").strip()) else []
    measured = item.get("MeasuredValueSequence") or ()
    if kind == "NUM" and measured and measured[0].get("NumericValue") is not None:
        return [str(measured[0].NumericValue)]
    return []


def _replaced(dataset: Dataset) -> Iterator[str]:
    for study in dataset.get("PredecessorDocumentsSequence") or ():
        for series in study.get("ReferencedSeriesSequence") or ():
            for document in series.get("ReferencedSOPSequence") or ():
                yield str(document.ReferencedSOPInstanceUID)
