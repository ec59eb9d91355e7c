"""Index folders of DICOM files: headers only, incremental, and nothing that cannot be read is fatal.

A file whose size and modification time are as before is not opened again. Files that are gone leave the index. What
cannot be used is quarantined with a sentence that a person understands. An index that was interrupted goes on where it
stopped. `files` of the report counts every regular file; it is `indexed` + the quarantined + `companions`.

However many files there are, no more than a window of them is held in memory (`index_changes.py`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from site_node.cohort.contents import contents_of
from site_node.cohort.index_changes import IndexChanges
from site_node.cohort.index_database import IndexDatabase, Quarantined, open_index
from site_node.cohort.mask_files import mask_files
from site_node.dicom.folder import FoundFile, Outcome, examine, walk
from site_node.dicom.parallel import reading_files
from site_node.errors import IndexingError

BATCH_FILES = 500

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Lost:
    """A folder whose files may still be there, and how one sees that it went away."""

    folder: Path
    why: str


@dataclass(frozen=True)
class IndexReport:
    """What the index holds now, and what this run did.

    `instances` counts distinct SOP instances, `indexed` their files, `companions` text files and masks beside them.
    `patients` counts distinct patient ids; images whose header has none belong to whom labels.csv says.
    """

    files: int
    instances: int
    patients: int
    indexed: int
    quarantined: tuple[Quarantined, ...]
    companions: int = 0
    opened: int = 0
    vanished: int = 0


class FolderLostError(IndexingError):
    """A folder went away; `report` is what the index holds all the same, with the other folders brought up to date."""

    def __init__(self, message: str, remedy: str, report: IndexReport) -> None:
        super().__init__(message, remedy)
        self.report = report


def index_folder(
    folders: Sequence[Path],
    index_path: Path,
    *,
    labels: Path | None = None,
    progress: Progress | None = None,
    processes: int | None = None,
    decode: bool = False,
) -> IndexReport:
    """Bring the index up to date with what lies in the folders.

    What the masks.csv beside `labels` (by default labels.csv in the first folder) names accompanies the images.
    `progress` is told (files opened, files to open). With `processes` unset, many files are read in parallel. With
    `decode` every image that never was is read whole and decoded, all frames, and quarantined if that fails.
    Raises: FolderLostError if a folder is not there, or is empty though files of it are indexed, or a share that was
        mounted below it is not any more: what was indexed of it stays, and the other folders are up to date.
    """
    with open_index(index_path) as database:
        changes = database.changes()
        lost = _look(changes, [folder.resolve() for folder in folders])
        opened = _read(database, changes, progress, processes)
        vanished = changes.forget_gone()
        if labels is None and folders:
            labels = folders[0].resolve() / "labels.csv"
        database.take_as_companions(mask_files(labels) if labels is not None else ())
        if decode and not lost:  # what went away would not be read, and be set aside for it
            _decode(database)
        counts, quarantined = database.counts(), database.quarantined()
        known = counts.images + len(quarantined) + counts.companions  # with those of a folder that went away
        report = IndexReport(
            files=known if lost else changes.files(),
            instances=counts.instances,
            patients=counts.patients,
            indexed=counts.images,
            quarantined=quarantined,
            companions=counts.companions,
            opened=opened,
            vanished=vanished,
        )
    if lost:
        raise _loss(lost, index_path, report)
    return report


def _look(changes: IndexChanges, folders: Sequence[Path]) -> list[Lost]:
    """Note what lies in the folders, compare, and return what went away instead of being deleted."""
    lost, closed, mounts = list[Lost](), list[Path](), list[Path]()
    for folder in folders:
        if not folder.is_dir():
            lost.append(Lost(folder, "not there, or is no folder"))
        elif not changes.note(_noticed(walk(folder, mounts), closed)) and changes.holds_files_below(folder):
            lost.append(Lost(folder, "empty, though files of it are indexed"))
    gone = changes.lost_mounts(mounts, [folder for folder in folders if folder not in {one.folder for one in lost}])
    lost += [Lost(folder, "no mounted share any more, though files of it are indexed") for folder in gone]
    changes.settle([*(one.folder for one in lost), *closed])
    return lost


def _noticed(files: Iterable[FoundFile], closed: list[Path]) -> Iterator[FoundFile]:
    for file in files:
        if file.is_folder:
            closed.append(file.path)
        yield file


def _loss(lost: Sequence[Lost], index_path: Path, report: IndexReport) -> FolderLostError:
    said = "; ".join(f"{one.folder} is {one.why}" for one in lost)
    return FolderLostError(
        f"The folder of images {said}. What was indexed of it stays; everything else is up to date.",
        "Mount it again, and check its path. If its images were really removed, delete the index file "
        f"({index_path}) and index anew.",
        report,
    )


def _decode(database: IndexDatabase) -> None:
    unread = (image for image in list(database.images()) if image.content is None)
    while batch := list(islice(unread, BATCH_FILES)):
        contents_of(database, batch)


def _read(database: IndexDatabase, changes: IndexChanges, progress: Progress | None, processes: int | None) -> int:
    """Read what is new or changed and return how many files that is."""
    opened, done, total = 0, 0, changes.fresh_files()
    with reading_files(total, processes) as for_each:
        for files in changes.fresh():
            opened += len(files)
            database.store((file, Outcome(file.path, problem=file.problem)) for file in files if file.problem)
            readable = [file for file in files if not file.problem]
            outcomes = zip(readable, for_each(examine, [file.path for file in readable]), strict=True)
            while batch := list(islice(outcomes, BATCH_FILES)):
                database.store(batch)
                done += len(batch)
                if progress is not None:
                    progress(done, total)
    return opened
