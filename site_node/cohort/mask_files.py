"""Which files masks.csv names: they lie beside the images, and none of them is a fault of the index."""

import os
from pathlib import Path

from site_node.cohort.csv_file import read_records
from site_node.errors import LabelsError

MASKS = "masks.csv"
FILE_COLUMN = "file"
IF_UNREADABLE = "Put a masks.csv beside labels.csv: file, and sop_instance_uid or series_instance_uid."


def mask_files(labels: Path) -> frozenset[Path]:
    """Return the files that the masks.csv beside labels.csv names; none where it is missing or no such table.

    What is wrong with masks.csv itself is told where masks are needed (`masks.py`).
    """
    path = labels.with_name(MASKS)
    if not path.exists():
        return frozenset()
    try:
        named = [record[FILE_COLUMN] for record in read_records(path, (FILE_COLUMN,), IF_UNREADABLE)]
    except LabelsError:
        return frozenset()
    return frozenset(Path(os.path.normpath(path.parent / one)) for one in named if one)
