"""What an enhanced multi-frame image says of one frame: in the frame's own item, or in the one that all frames share.

Source: DICOM PS3.3 C.7.6.16 (Multi-frame Functional Groups).
"""

from pydicom.dataset import Dataset


def functional_group(dataset: Dataset, frame: int, name: str) -> Dataset | None:
    """Return one functional group's item of a frame: the frame's own, or else the one that all share, or None."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in (*per_frame[frame : frame + 1], *shared):
        items = group.get(name)
        if items:
            item: Dataset = items[0]
            return item
    return None
