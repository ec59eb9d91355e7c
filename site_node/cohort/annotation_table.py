"""The index's table of annotations: segmentations, structure sets and reports, and which images each was made of.

It stands beside the table of files, whose states it leaves as they are: a segmentation has pixels, a report has none,
and is quarantined as an image. A row belongs to the file of its path and goes with it.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from site_node.dicom.annotations import AnnotationHeader
from site_node.file_names import stored

SCHEMA = """
CREATE TABLE IF NOT EXISTS annotations (
    path TEXT PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('seg', 'rtstruct', 'sr')),
    sop_instance_uid TEXT NOT NULL, patient_id TEXT, study_instance_uid TEXT, frame_of_reference_uid TEXT,
    series TEXT NOT NULL, instances TEXT NOT NULL
) WITHOUT ROWID;
"""
STORE = "INSERT OR REPLACE INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class IndexedAnnotation:
    """An annotation's file as the index knows it."""

    path: Path
    header: AnnotationHeader


def store_annotations(database: sqlite3.Connection, read: Iterable[tuple[Path, AnnotationHeader | None]]) -> None:
    """Write what these files gave; a file that is no annotation, or none any more, has no row."""
    for path, header in read:
        if header is None:
            database.execute("DELETE FROM annotations WHERE path = ?", (stored(str(path)),))
        else:
            database.execute(STORE, _row(path, header))


def forget_annotations(database: sqlite3.Connection, paths: Iterable[str]) -> None:
    """Remove the rows of files that are no longer there."""
    database.executemany("DELETE FROM annotations WHERE path = ?", [(stored(path),) for path in paths])


def annotations_of(database: sqlite3.Connection) -> Iterator[IndexedAnnotation]:
    """Yield the annotations, ordered by path."""
    for row in database.execute("SELECT * FROM annotations ORDER BY path"):
        header = AnnotationHeader(
            kind=row["kind"],
            sop_instance_uid=row["sop_instance_uid"],
            patient_id=row["patient_id"],
            study_instance_uid=row["study_instance_uid"],
            frame_of_reference_uid=row["frame_of_reference_uid"],
            series=tuple(json.loads(row["series"])),
            instances=tuple(json.loads(row["instances"])),
        )
        yield IndexedAnnotation(Path(os.fsdecode(row["path"])), header)


def _row(path: Path, header: AnnotationHeader) -> tuple[object, ...]:
    facts = (header.kind, header.sop_instance_uid, header.patient_id)
    places = (header.study_instance_uid, header.frame_of_reference_uid)
    return (stored(str(path)), *facts, *places, json.dumps(header.series), json.dumps(header.instances))
