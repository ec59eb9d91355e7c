"""Walk folders and read the header of what lies there.

Names that begin with a dot (`.DS_Store`) and text files that usually lie beside images (`labels.csv`, `README.md`,
`ATTRIBUTION`) are companions: counted, not read, and no fault. Anything else that is no DICOM is a finding.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from site_node.dicom.annotations import AnnotationHeader, annotation_kind, read_annotation
from site_node.dicom.headers import EMPTY, NOT_DICOM, InstanceHeader, read_header, series_of_damaged
from site_node.errors import IndexingError, UnreadableError

COMPANION_SUFFIXES = frozenset({".csv", ".tsv", ".md", ".txt", ".json", ".yaml", ".yml"})
COMPANION_NAMES = frozenset({"README", "LICENSE", "ATTRIBUTION", "NOTICE", "THUMBS.DB"})


@dataclass(frozen=True)
class FoundFile:
    """A regular file as it lies in the folder; `problem` is set if it cannot even be looked at.

    `is_folder`: it is a folder that cannot be opened, and nobody knows what lies in it.
    """

    path: Path
    size: int = 0
    mtime_ns: int = 0
    problem: str | None = None
    is_folder: bool = False


@dataclass(frozen=True)
class Outcome:
    """What reading one file gave: a header, or a problem, or neither for a companion file.

    `series_instance_uid` is set where a file has a problem and its header still tells to which series it belongs: that
    series is not complete. It never leaves the hospital. `annotation` is set where the file labels images, whether it
    has pixels (a segmentation) or not (a structure set, a report).
    """

    path: Path
    header: InstanceHeader | None = None
    problem: str | None = None
    series_instance_uid: str | None = None
    annotation: AnnotationHeader | None = None


def walk(root: Path, mounts: list[Path] | None = None) -> Iterator[FoundFile]:
    """Yield the regular files below a folder, sorted by name in each folder; links are followed, but no loop.

    The folder itself and those below it on which another file system is mounted are added to `mounts`.
    Raises: IndexingError if the folder itself is not there or cannot be opened.
    """
    if not root.is_dir():
        raise IndexingError(
            f"The folder of images {root} is not there, or is no folder.",
            "Check the path, and that the drive or network share is mounted.",
        )
    yield from _walk(root, set(), device_of(root.parent), [] if mounts is None else mounts)


def is_companion(path: Path) -> bool:
    """Tell whether a file's name says that it accompanies images and is none itself."""
    name = path.name
    return name.startswith(".") or path.suffix.lower() in COMPANION_SUFFIXES or name.upper() in COMPANION_NAMES


def examine(path: Path) -> Outcome:
    """Read one file's header; a file that cannot be used becomes an outcome with a problem, never an exception."""
    try:
        header = read_header(path)
    except UnreadableError as error:
        if error.message in (NOT_DICOM, EMPTY):
            return Outcome(path, problem=None if is_companion(path) else error.message)
        series = series_of_damaged(path)
        return Outcome(path, problem=error.message, series_instance_uid=series, annotation=read_annotation(path))
    annotation = read_annotation(path) if annotation_kind(header.sop_class_uid) else None
    return Outcome(path, header=header, annotation=annotation)


def device_of(folder: Path) -> int:
    """Return the number of the file system on which a folder lies."""
    return folder.stat().st_dev


def _walk(folder: Path, visited: set[tuple[int, int]], outside: int, mounts: list[Path]) -> Iterator[FoundFile]:
    try:
        identity, device = folder.stat(), device_of(folder)
        if (identity.st_dev, identity.st_ino) in visited:
            return
        visited.add((identity.st_dev, identity.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield FoundFile(folder, problem=_cannot_open("folder", error), is_folder=True)
        return
    if device != outside:
        mounts.append(folder)
    yield from _files(entries, visited, device, mounts)


def _files(
    entries: Iterable["os.DirEntry[str]"], visited: set[tuple[int, int]], device: int, mounts: list[Path]
) -> Iterator[FoundFile]:
    for entry in entries:
        path = Path(entry.path)
        try:
            status = entry.stat()
        except OSError as error:
            yield FoundFile(path, problem=_cannot_open("file", error))
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(path, visited, device, mounts)
        elif stat.S_ISREG(status.st_mode):
            yield FoundFile(path, status.st_size, status.st_mtime_ns)


def _cannot_open(what: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"the {what} is a link to something that is not there, or went away"
    return f"the {what} cannot be opened: {(error.strerror or 'input error').lower()}"
