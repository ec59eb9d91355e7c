"""Which words of this site's labels, and structures and values of its masks, the study does not know.

For the administrator's own terminal. They are the hospital's words for organs, findings and classes. A column that was
named by mistake could hold anything, so a word is shown only if it stands for as many patients as the smallest count
that is shown at all; the rarer ones are counted, and shown when asked for. Nothing of this goes to a log.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pydicom

from protocol.study import StudySpec
from site_node.cohort.csv_file import PATIENT_COLUMN, class_number, numbered
from site_node.cohort.index_database import IndexDatabase, open_index
from site_node.cohort.label_records import LabelRecords
from site_node.cohort.mask_files import MASKS
from site_node.cohort.masks import read_mask_list
from site_node.dicom.annotations import AnnotationKind
from site_node.dicom.quiet import quiet
from site_node.doctor.finding import Finding, fine, warning
from site_node.errors import MaskError, SiteError
from site_node.labels.masks import MaskRef, values_in
from site_node.labels.naming import BACKGROUND, class_numbers, folded
from site_node.labels.rtstruct import opened_structure_set, structure_names
from site_node.labels.seg import segment_names
from site_node.labels.structures import class_of_names
from site_node.labels.voxel_values import class_of_value, only_value_named
from site_node.opt_outs import load_identities
from site_node.settings import SiteSettings

MOST_NAMED = 40
LONGEST_NAME = 64


@dataclass(frozen=True)
class Unknown:
    """Words that stand for no class of the study, by the number of patients; `rarer` counts those not shown."""

    words: Mapping[str, int]
    rarer: int


def find_unknown_names(
    settings: SiteSettings,
    study: StudySpec,
    least: int,
    *,
    all_names: bool = False,
    known: Mapping[str, int] | None = None,
) -> Unknown | None:
    """Return the words of labels or masks that the study does not know; None where they cannot be read.

    `known` are the names that a cohort's masks were read with; without them the values of all masks are compared.
    """
    if study.kind in ("tabular", "regression") or study.label.several:
        return Unknown({}, 0)
    if not settings.paths.index.exists():
        return None
    try:
        with open_index(settings.paths.index, load_identities(settings)) as database:
            if study.kind == "segmentation" and not _has_masks(settings, database):
                return None
            found = (
                _in_masks(settings, study, database) + _in_values(settings, study, database, known)
                if study.kind == "segmentation"
                else _in_labels(settings, study, database)
            )
    except SiteError:  # said where the patients are looked for
        return None
    words = [(word, count) for word, count in found.most_common() if all_names or count >= least]
    return Unknown(dict(words[:MOST_NAMED]), len(found) - len(words[:MOST_NAMED]))


def said_of(unknown: Unknown | None) -> Finding:
    """Return the finding: how many words are unknown, and what to do."""
    if unknown is None:
        says = "The words of the labels or masks were not read, so nobody knows whether they are the study's."
        return Finding("names", "unseen", says, "Mend what is said of the labels, and check again.")
    number = len(unknown.words) + unknown.rarer
    if not number:
        return fine("names", "Every word of the labels or masks is the study's, or is mapped to it.")
    rarer = f"; {unknown.rarer} rarer ones are not shown (--all-names shows them)" if unknown.rarer else ""
    listed = ", ".join(repr(word) for word in unknown.words)
    says = f"{number} words or values stand for no class of the study{f': {listed}' if listed else ''}{rarer}."
    return warning("names", says, "Give each, in label_names of site.yaml, a class of the study or an empty word.")


def _has_masks(settings: SiteSettings, database: IndexDatabase) -> bool:
    return settings.labels.with_name(MASKS).exists() or any(True for _ in database.annotations())


def _in_labels(settings: SiteSettings, study: StudySpec, database: IndexDatabase) -> Counter[str]:
    classes, column = numbered(study.label.classes), study.label.column
    one_id = load_identities(settings).one
    records = LabelRecords.of_study(database, settings.labels, study, settings.labelling, one_id)
    said = {(record[column][:LONGEST_NAME], one_id(record[PATIENT_COLUMN])) for record in records.of([column])}
    return Counter(word for word, _ in said if word and class_number(word, classes) is None)


def _in_masks(settings: SiteSettings, study: StudySpec, database: IndexDatabase) -> Counter[str]:
    known = class_numbers(study.label.classes, settings.labelling.names)
    found = {
        (folded(names[0])[:LONGEST_NAME], annotation.header.patient_id)
        for annotation in database.annotations()
        for names in _structures(annotation.path, annotation.header.kind)
        if names and class_of_names(names, known) is None
    }
    return Counter(name for name, _ in found)


def _in_values(
    settings: SiteSettings, study: StudySpec, database: IndexDatabase, known: Mapping[str, int] | None
) -> Counter[str]:
    """Count the values of the mask files that masks.csv gives to images of the index."""
    path = settings.labels.with_name(MASKS)
    masks = read_mask_list(path).files if path.exists() else {}
    of_file = {mask.path: frozenset(_values(mask)) for mask in masks.values()}
    if known is None:
        numbers = class_numbers(study.label.classes, settings.labelling.names)
        every = frozenset[int]().union(*of_file.values())
        known = only_value_named(numbers, [v for v in every if class_of_value(v, numbers) != BACKGROUND])
    found = {
        (value, image.header.patient_id)
        for image in database.pictures()
        for uid in (image.header.sop_instance_uid, image.header.series_instance_uid)
        if uid is not None and uid in masks
        for value in of_file[masks[uid].path]
    }
    return Counter(str(value) for value, _ in found if class_of_value(value, known) is None)


def _values(mask: MaskRef) -> list[int]:
    """Return the values in a mask file; none if it cannot be read, which the patients' findings say."""
    try:
        return values_in(mask)
    except MaskError:
        return []


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
