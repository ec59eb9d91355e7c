"""The index as a table: one row for each file, with its header's facts or the reason why it has none.

The index holds patient ids; it lies in the worker's own folder, readable by its user alone, and never leaves. It is
derived data: written by another reader version, it is emptied and made again. A path is text, or bytes where a name is
not UTF-8.
"""

import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from pathlib import Path

from site_node.cohort.annotation_table import SCHEMA as ANNOTATIONS
from site_node.cohort.annotation_table import (
    IndexedAnnotation,
    annotations_of,
    store_annotations,
)
from site_node.cohort.identities import AS_THEY_ARE, Identities
from site_node.cohort.index_changes import IndexChanges
from site_node.dicom.annotations import SEGMENTATION_CLASSES
from site_node.dicom.folder import FoundFile, Outcome, is_companion
from site_node.dicom.headers import NOT_DICOM, InstanceHeader
from site_node.file_names import stored
from site_node.sqlite import connection, transaction

READER_VERSION = 4
NORMAL = 1  # of SQLite's levels: every commit of a WAL is written, and only its checkpoints are synced
HEADER_COLUMNS = tuple(field.name for field in fields(InstanceHeader))
FACTS = attrgetter(*HEADER_COLUMNS)
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('image', 'quarantined', 'companion')), problem TEXT,
    content_digest TEXT, content_problem TEXT, {", ".join(HEADER_COLUMNS)}
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_instance ON files (sop_instance_uid);
{ANNOTATIONS}
PRAGMA user_version = {READER_VERSION};
"""
COLUMNS = ("path", "size", "mtime_ns", "state", "problem", *HEADER_COLUMNS)
# only constants of this file are put together here; values are always bound
STORE = f"INSERT OR REPLACE INTO files ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
SET_STATE = "UPDATE files SET state = ?, problem = ? WHERE path = ? AND state = ? AND problem IS ?"
REMEMBER = "UPDATE files SET content_digest = ?, content_problem = ? WHERE path = ? AND size = ? AND mtime_ns = ?"


@dataclass(frozen=True)
class Content:
    """What reading a whole file gave: the digest of its bytes, and why its pixels cannot be used, if they cannot."""

    digest: str
    problem: str | None


@dataclass(frozen=True)
class IndexedImage:
    """A usable image file as the index knows it; `content` is None until the file was once read whole."""

    path: Path
    size: int
    mtime_ns: int
    header: InstanceHeader
    content: Content | None


@dataclass(frozen=True)
class Quarantined:
    """A file that is left out, and why; for the administrator's own eyes."""

    file: Path
    reason: str


@dataclass(frozen=True)
class Counts:
    """How many images, distinct instances, distinct patients and companion files the index holds."""

    images: int
    instances: int
    patients: int
    companions: int


class IndexDatabase:
    """The open index; made by `open_index`. It tells images under their patients' one id, none of who opted out."""

    def __init__(self, database: sqlite3.Connection, identities: Identities) -> None:
        self._database = database
        self._identities = identities

    def changes(self) -> IndexChanges:
        """Begin to compare the index with what lies in the folders."""
        return IndexChanges(self._database)

    def store(self, outcomes: Iterable[tuple[FoundFile, Outcome]]) -> None:
        """Write what reading these files gave, in one transaction; what was known of them is replaced."""
        read = list(outcomes)
        with transaction(self._database) as database:
            database.executemany(STORE, [_row(found, outcome) for found, outcome in read])
            store_annotations(database, ((found.path, outcome.annotation) for found, outcome in read))

    def take_as_companions(self, named: Collection[Path]) -> None:
        """Let these files, where they are no DICOM, accompany the images; who did before and is not named does not."""
        now = [stored(str(path)) for path in named]
        before = [row[0] for row in self._database.execute("SELECT path FROM files WHERE state = 'companion'")]
        left = [path for path in before if not is_companion(Path(os.fsdecode(path)))]
        with transaction(self._database) as database:
            database.executemany(SET_STATE, [("quarantined", NOT_DICOM, path, "companion", None) for path in left])
            database.executemany(SET_STATE, [("companion", None, path, "quarantined", NOT_DICOM) for path in now])

    def remember(self, contents: Iterable[tuple[IndexedImage, Content]]) -> None:
        """Write what reading these files whole gave, in one transaction; a file that changed meanwhile is left."""
        rows = [(c.digest, c.problem, stored(str(i.path)), i.size, i.mtime_ns) for i, c in contents]
        with transaction(self._database) as database:
            database.executemany(REMEMBER, rows)

    def images(self) -> Iterator[IndexedImage]:
        """Yield the usable images, ordered by path."""
        for row in self._database.execute("SELECT * FROM files WHERE state = 'image' ORDER BY path"):
            patient = row["patient_id"]
            if patient is not None and not self._identities.takes_part(patient):
                continue
            values = {name: row[name] for name in HEADER_COLUMNS}
            header = InstanceHeader(**{**values, "patient_id": patient and self._identities.one(patient)})
            digest = row["content_digest"]
            content = Content(digest, row["content_problem"]) if digest else None
            yield IndexedImage(Path(os.fsdecode(row["path"])), row["size"], row["mtime_ns"], header, content)

    def pictures(self) -> Iterator[IndexedImage]:
        """Yield the usable images but segmentations, ordered by path: those that a study can take."""
        return (image for image in self.images() if image.header.sop_class_uid not in SEGMENTATION_CLASSES)

    def annotations(self) -> Iterator[IndexedAnnotation]:
        """Yield what labels images, ordered by path, under its patient's one id; nothing of who opted out."""
        for annotation in annotations_of(self._database):
            patient = annotation.header.patient_id
            if patient is None or self._identities.takes_part(patient):
                one = patient and self._identities.one(patient)
                yield replace(annotation, header=replace(annotation.header, patient_id=one))

    def patient_ids(self) -> frozenset[str]:
        """Return the ids of patients as the files write them, whoever is merged and whoever has opted out."""
        rows = self._database.execute("SELECT DISTINCT patient_id FROM files WHERE patient_id IS NOT NULL")
        return frozenset(row[0] for row in rows)

    def quarantined(self) -> tuple[Quarantined, ...]:
        """Return the files that are left out, ordered by path; also images whose pixels turned out not to decode."""
        rows = self._database.execute(
            "SELECT path, coalesce(problem, content_problem) AS problem FROM files"
            " WHERE state = 'quarantined' OR content_problem IS NOT NULL ORDER BY path"
        )
        return tuple(Quarantined(Path(os.fsdecode(row["path"])), row["problem"]) for row in rows)

    def damaged_series(self) -> frozenset[str]:
        """Return the UIDs of the series of which some file is left out."""
        rows = self._database.execute(
            "SELECT DISTINCT series_instance_uid FROM files"
            " WHERE state = 'quarantined' AND series_instance_uid IS NOT NULL"
        )
        return frozenset(row[0] for row in rows)

    def counts(self) -> Counts:
        """Count what the index holds; images without a patient id count for no patient."""
        row = self._database.execute(
            "SELECT count(*) FILTER (WHERE state = 'image' AND content_problem IS NULL),"
            " count(DISTINCT sop_instance_uid), count(DISTINCT patient_id),"
            " count(*) FILTER (WHERE state = 'companion') FROM files"
        ).fetchone()
        return Counts(*row)


@contextmanager
def open_index(path: Path, identities: Identities = AS_THEY_ARE) -> Iterator[IndexDatabase]:
    """Open the index, making it if it is not there; by default nobody is merged and nobody has opted out.

    Raises: DatabaseError if it cannot be opened.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    with connection(path, "") as database:
        if database.execute("PRAGMA synchronous").fetchone()[0] > NORMAL:
            # what a power cut takes away is read again from the files; the database itself stays whole (WAL)
            database.execute(f"PRAGMA synchronous = {NORMAL}")
        if database.execute("PRAGMA user_version").fetchone()[0] != READER_VERSION:
            database.execute("DROP TABLE IF EXISTS files")
            database.execute("DROP TABLE IF EXISTS annotations")
        database.executescript(SCHEMA)
        yield IndexDatabase(database, identities)


def _series_alone(outcome: Outcome) -> tuple[str | None, ...]:
    return tuple(outcome.series_instance_uid if name == "series_instance_uid" else None for name in HEADER_COLUMNS)


def _row(found: FoundFile, outcome: Outcome) -> tuple[object, ...]:
    header = outcome.header
    facts = FACTS(header) if header else _series_alone(outcome)
    state = "image" if header else "quarantined" if outcome.problem else "companion"
    return (stored(str(found.path)), found.size, found.mtime_ns, state, outcome.problem, *facts)
