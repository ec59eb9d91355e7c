"""The segmentations and structure sets of the index as a study's masks: each of the series and images that it names.

Copies of one object count once. Several segmentations of one series are read together, because programs write one
for each organ (`labels/seg_set.py`, which refuses those that contradict each other). Of a structure set and anything
else none is chosen: masks.csv decides, whose rows go first.
"""

from collections.abc import Iterable
from dataclasses import replace

from site_node.cohort.annotation_table import IndexedAnnotation
from site_node.cohort.masks import MaskList
from site_node.labels.masks import Kind, MaskRef

KINDS: dict[str, Kind] = {"seg": "seg", "rtstruct": "rtstruct"}


def masks_of_index(annotations: Iterable[IndexedAnnotation]) -> MaskList:
    """Return the masks by the UIDs of the series and images that they were made of."""
    files: dict[str, MaskRef] = {}
    seen: set[tuple[str, str]] = set()
    contradicting: set[str] = set()
    for annotation in annotations:
        header, kind = annotation.header, KINDS.get(annotation.header.kind)
        for uid in (*header.series, *header.instances) if kind else ():
            if not kind or (uid, header.sop_instance_uid) in seen:
                continue
            seen.add((uid, header.sop_instance_uid))
            known, is_series = files.get(uid), uid in header.series
            if known is None:
                files[uid] = MaskRef(annotation.path, kind, uid if is_series else None, None if is_series else uid)
            elif known.kind == kind == "seg":
                files[uid] = replace(known, beside=(*known.beside, annotation.path))
            else:
                contradicting.add(uid)
    return MaskList(files, frozenset(contradicting))
