"""Which words of this site's labels and masks the study does not know, for the administrator's own terminal.

They are the hospital's words for organs, findings and classes. A column that was named by mistake could hold anything,
so a word is shown only if it stands in as many rows or objects as the smallest count that is shown at all; the rarer
ones are counted, and shown when asked for. Nothing of this goes to a log.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pydicom

from protocol.study import StudySpec
from site_node.cohort.csv_file import class_number, numbered
from site_node.cohort.index_database import IndexDatabase, open_index
from site_node.cohort.label_records import LabelRecords
from site_node.dicom.annotations import AnnotationKind
from site_node.dicom.quiet import quiet
from site_node.doctor.finding import Finding, fine, warning
from site_node.errors import MaskError, SiteError
from site_node.labels.naming import class_numbers, folded
from site_node.labels.rtstruct import opened_structure_set, structure_names
from site_node.labels.seg import segment_names
from site_node.labels.structures import class_of_names
from site_node.opt_outs import load_identities
from site_node.settings import SiteSettings

MOST_NAMED = 40
LONGEST_NAME = 64


@dataclass(frozen=True)
class Unknown:
    """Words that stand for no class of the study, by the number of rows or objects; `rarer` counts those not shown."""

    words: Mapping[str, int]
    rarer: int


def find_unknown_names(settings: SiteSettings, study: StudySpec, least: int, *, all_names: bool = False) -> Unknown:
    """Return the words of labels or masks that the study does not know; none where they cannot be read."""
    if study.kind in ("tabular", "regression") or study.label.several or not settings.paths.index.exists():
        return Unknown({}, 0)
    try:
        with open_index(settings.paths.index, load_identities(settings)) as database:
            found = (
                _in_masks(settings, study, database)
                if study.kind == "segmentation"
                else _in_labels(settings, study, database)
            )
    except SiteError:  # said where the patients are looked for
        return Unknown({}, 0)
    words = [(word, count) for word, count in found.most_common() if all_names or count >= least]
    return Unknown(dict(words[:MOST_NAMED]), len(found) - len(words[:MOST_NAMED]))


def said_of(unknown: Unknown) -> Finding:
    """Return the finding: how many words are unknown, and what to do."""
    number = len(unknown.words) + unknown.rarer
    if not number:
        return fine("names", "Every word of the labels is the study's, or is mapped to it.")
    rarer = f"; {unknown.rarer} rarer ones are not shown (--all-names shows them)" if unknown.rarer else ""
    listed = ", ".join(repr(word) for word in unknown.words)
    says = f"{number} words stand for no class of the study{f': {listed}' if listed else ''}{rarer}."
    return warning(
        "names", says, "Add them to label_names in site.yaml, each with a class of the study or an empty word."
    )


def _in_labels(settings: SiteSettings, study: StudySpec, database: IndexDatabase) -> Counter[str]:
    classes, column = numbered(study.label.classes), study.label.column
    records = LabelRecords.of_study(database, settings.labels, study, settings.labelling, load_identities(settings).one)
    words = (record[column] for record in records.of([column]))
    return Counter(word[:LONGEST_NAME] for word in words if word and class_number(word, classes) is None)


def _in_masks(settings: SiteSettings, study: StudySpec, database: IndexDatabase) -> Counter[str]:
    known = class_numbers(study.label.classes, settings.labelling.names)
    found: Counter[str] = Counter()
    for annotation in database.annotations():
        for names in _structures(annotation.path, annotation.header.kind):
            if names and class_of_names(names, known) is None:
                found[folded(names[0])[:LONGEST_NAME]] += 1
    return found


def _structures(path: Path, kind: AnnotationKind) -> Iterable[tuple[str, ...]]:
    """Return the names of a mask's structures; none if it cannot be read, which the patients' findings say."""
    try:
        if kind == "rtstruct":
            return structure_names(opened_structure_set(path)).values()
        if kind == "seg":
            with quiet():
                dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SegmentSequence"])
                return segment_names(dataset).values()
    except MaskError:
        return ()
    except Exception:  # pydicom raises whatever a damaged file leads it to
        return ()
    return ()
