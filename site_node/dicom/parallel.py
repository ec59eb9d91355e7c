"""Many files at a time: parsing DICOM holds Python's lock, so processes help and threads do not."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import current_process, get_context
from pathlib import Path
from typing import Protocol, TypeVar

PARALLEL_FROM_FILES = 4000
CHUNK_FILES = 64
MAX_PROCESSES = 8

Result = TypeVar("Result")


class ForEach(Protocol):
    """Yields a function's results in the order of the paths."""

    def __call__(self, function: Callable[[Path], Result], paths: Sequence[Path], /) -> Iterator[Result]:
        """Do the function to each file."""
        ...


def for_each_file(
    function: Callable[[Path], Result], paths: Sequence[Path], processes: int | None = None
) -> Iterator[Result]:
    """Yield the function's results in the order of the paths.

    By default few files are done in this process, and many by one child process per core. The children are started
    afresh and not forked, because this process may hold threads. A daemonic process may have no children: it does all
    itself. The function must be one of a module's top level and raise nothing.
    """
    with reading_files(len(paths), processes) as for_each:
        yield from for_each(function, paths)


@contextmanager
def reading_files(files: int, processes: int | None = None) -> Iterator["ForEach"]:
    """Yield what does a function to many files, as `for_each_file` says, as often as wanted: with one pool for all."""
    count = processes if processes is not None else _default_processes(files)
    if count <= 1 or current_process().daemon:
        yield lambda function, paths: map(function, paths)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield lambda function, paths: pool.map(function, paths, chunksize=CHUNK_FILES)


def _default_processes(files: int) -> int:
    return 1 if files < PARALLEL_FROM_FILES else min(MAX_PROCESSES, len(os.sched_getaffinity(0)))
