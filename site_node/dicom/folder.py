"""Walk folders and read the header of what lies there.

Names that begin with a dot (`.DS_Store`) and text files that usually lie beside images (`labels.csv`, `README.md`,
`ATTRIBUTION`) are companions: counted, not read, and no fault. Anything else that is no DICOM is a finding.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from site_node.dicom.headers import EMPTY, NOT_DICOM, InstanceHeader, read_header, series_of_damaged
from site_node.errors import IndexingError, UnreadableError

COMPANION_SUFFIXES = frozenset({".csv", ".tsv", ".md", ".txt", ".json", ".yaml", ".yml"})
COMPANION_NAMES = frozenset({"README", "LICENSE", "ATTRIBUTION", "NOTICE", "THUMBS.DB"})


@dataclass(frozen=True)
class FoundFile:
    """A regular file as it lies in the folder; `problem` is set if it cannot even be looked at."""

    path: Path
    size: int = 0
    mtime_ns: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What reading one file gave: a header, or a problem, or neither for a companion file.

    `series_instance_uid` is set where a file has a problem and its header still tells to which series it belongs: that
    series is not complete. It never leaves the hospital.
    """

    path: Path
    header: InstanceHeader | None = None
    problem: str | None = None
    series_instance_uid: str | None = None


def walk(root: Path) -> Iterator[FoundFile]:
    """Yield the regular files below a folder, sorted by name in each folder; links are followed, but no loop.

    Raises: IndexingError if the folder itself is not there or cannot be opened.
    """
    if not root.is_dir():
        raise IndexingError(
            f"The folder of images {root} is not there, or is no folder.",
            "Check the path, and that the drive or network share is mounted.",
        )
    yield from _walk(root, set())


def is_companion(path: Path) -> bool:
    """Tell whether a file's name says that it accompanies images and is none itself."""
    name = path.name
    return name.startswith(".") or path.suffix.lower() in COMPANION_SUFFIXES or name.upper() in COMPANION_NAMES


def examine(path: Path) -> Outcome:
    """Read one file's header; a file that cannot be used becomes an outcome with a problem, never an exception."""
    try:
        return Outcome(path, header=read_header(path))
    except UnreadableError as error:
        if is_companion(path) and error.message in (NOT_DICOM, EMPTY):
            return Outcome(path)
        return Outcome(path, problem=error.message, series_instance_uid=series_of_damaged(path))


def _walk(folder: Path, visited: set[tuple[int, int]]) -> Iterator[FoundFile]:
    try:
        identity = folder.stat()
        if (identity.st_dev, identity.st_ino) in visited:
            return
        visited.add((identity.st_dev, identity.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield FoundFile(folder, problem=_cannot_open("folder", error))
        return
    yield from _files(entries, visited)


def _files(entries: Iterable["os.DirEntry[str]"], visited: set[tuple[int, int]]) -> Iterator[FoundFile]:
    for entry in entries:
        path = Path(entry.path)
        try:
            status = entry.stat()
        except OSError as error:
            yield FoundFile(path, problem=_cannot_open("file", error))
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(path, visited)
        elif stat.S_ISREG(status.st_mode):
            yield FoundFile(path, status.st_size, status.st_mtime_ns)


def _cannot_open(what: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"the {what} is a link to something that is not there, or went away"
    return f"the {what} cannot be opened: {(error.strerror or 'input error').lower()}"
