"""Index folders of DICOM files: headers only, incremental, and nothing that cannot be read is fatal.

A file whose size and modification time are as before is not opened again. Files that are gone leave the index. What
cannot be used is quarantined with a sentence that a person understands. An index that was interrupted goes on where it
stopped. `files` of the report counts every regular file; it is `indexed` + the quarantined + `companions`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from site_node.cohort.contents import contents_of
from site_node.cohort.index_database import IndexDatabase, Quarantined, open_index
from site_node.dicom.folder import FoundFile, Outcome, examine, walk
from site_node.dicom.parallel import for_each_file
from site_node.errors import IndexingError

BATCH_FILES = 500

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class IndexReport:
    """What the index holds now, and what this run did.

    `instances` counts distinct SOP instances, `indexed` their files, `companions` text files beside the images.
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


def index_folder(
    folders: Sequence[Path],
    index_path: Path,
    *,
    progress: Progress | None = None,
    processes: int | None = None,
    decode: bool = False,
) -> IndexReport:
    """Bring the index up to date with what lies in the folders.

    `progress` is told (files opened, files to open). With `processes` unset, many files are read in parallel. With
    `decode` every image that never was is read whole and decoded, all frames, and quarantined if that fails.
    Raises: IndexingError if a folder is not there, or is empty though files of it are indexed: a network share that
        went away is not taken for a deletion.
    """
    found = {str(file.path): file for folder in folders for file in walk(folder.resolve())}
    with open_index(index_path) as database:
        known = database.known()
        _refuse_a_lost_share([folder.resolve() for folder in folders], found, known)
        fresh = [file for path, file in found.items() if known.get(path) != (file.size, file.mtime_ns) or file.problem]
        vanished = [path for path in known if path not in found]
        _read(database, fresh, progress, processes)
        database.forget(vanished)
        if decode:
            contents_of(database, list(database.images()))
        counts = database.counts()
        return IndexReport(
            files=len(found),
            instances=counts.instances,
            patients=counts.patients,
            indexed=counts.images,
            quarantined=database.quarantined(),
            companions=counts.companions,
            opened=len(fresh),
            vanished=len(vanished),
        )


def _read(
    database: IndexDatabase, files: Sequence[FoundFile], progress: Progress | None, processes: int | None
) -> None:
    database.store((file, Outcome(file.path, problem=file.problem)) for file in files if file.problem)
    readable = [file for file in files if not file.problem]
    outcomes = zip(readable, for_each_file(examine, [file.path for file in readable], processes), strict=True)
    done = 0
    for batch in _batches(outcomes):
        database.store(batch)
        done += len(batch)
        if progress is not None:
            progress(done, len(readable))


def _batches(outcomes: Iterator[tuple[FoundFile, Outcome]]) -> Iterator[list[tuple[FoundFile, Outcome]]]:
    while batch := list(islice(outcomes, BATCH_FILES)):
        yield batch


def _refuse_a_lost_share(
    folders: Sequence[Path], found: Mapping[str, FoundFile], known: Mapping[str, tuple[int, int]]
) -> None:
    for folder in folders:
        had = any(Path(path).is_relative_to(folder) for path in known)
        if had and not any(Path(path).is_relative_to(folder) for path in found):
            raise IndexingError(
                f"The folder of images {folder} is empty, though files of it are indexed.",
                "Mount it again. If its images were really removed, delete the index file and index anew.",
            )
