"""The segmentations and structure sets of the index as a study's masks: each of the series and images that it names.

Copies of one object count once. Of two different ones of the same series none is chosen: masks.csv decides, whose rows
go first.
"""

from collections.abc import Iterable

from site_node.cohort.annotation_table import IndexedAnnotation
from site_node.cohort.masks import MaskList
from site_node.labels.masks import Kind, MaskRef

KINDS: dict[str, Kind] = {"seg": "seg", "rtstruct": "rtstruct"}


def masks_of_index(annotations: Iterable[IndexedAnnotation]) -> MaskList:
    """Return the masks by the UIDs of the series and images that they were made of."""
    files: dict[str, MaskRef] = {}
    instances: dict[str, str] = {}
    contradicting: set[str] = set()
    for annotation in annotations:
        header, kind = annotation.header, KINDS.get(annotation.header.kind)
        for uid in (*header.series, *header.instances) if kind else ():
            if instances.setdefault(uid, header.sop_instance_uid) != header.sop_instance_uid:
                contradicting.add(uid)
            elif uid not in files and kind:
                is_series = uid in header.series
                files[uid] = MaskRef(annotation.path, kind, uid if is_series else None, None if is_series else uid)
    return MaskList(files, frozenset(contradicting))
