"""The index of a large archive: headers a second against bare pydicom, memory, and how long an unchanged tree takes.

nice python -m tests.benchmarks.indexing --instances 100000 --headers 4000

The archive is made of small images, `--distinct` of them written and the rest hard links to these, ten in a folder.
Headers are timed on files of their own, in the same number of processes, the two readers in turn, several times; the
ratio is of the best times. Memory is what this process and its children held at most beyond what they hold after their
imports, of an index of all instances in one process. Prints JSON.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.tag import Tag

from site_node.cohort.index import index_folder
from site_node.dicom.parallel import for_each_file
from tests.fakes.dicom import make_dataset, save

FILES_IN_A_FOLDER = 10
REPEATS = 3


def make_archive(folder: Path, instances: int, distinct: int, size: int, elements: int) -> None:
    """Write so many files, hard links but for the distinct ones."""
    generator = np.random.default_rng(0)
    made: list[Path] = []
    for number in range(instances):
        place = folder / f"{number // FILES_IN_A_FOLDER:05d}" / f"{number % FILES_IN_A_FOLDER}.dcm"
        if number < distinct:
            pixels = generator.integers(0, 256, (size, size), dtype=np.uint8)
            dataset = make_dataset(pixels, f"P{number:06d}", str(number))
            for element in range(elements):  # private ones, as scanners write them between what the standard names
                dataset.add_new(Tag(0x0019, 0x1000 + element), "LO", f"value {element}")
            made.append(save(dataset, place))
            continue
        if number % FILES_IN_A_FOLDER == 0:
            place.parent.mkdir(parents=True)
        os.link(made[number % distinct], place)


def bare(path: Path) -> str:
    """Read one header with pydicom alone."""
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def seconds(work: Callable[[], Any]) -> float:
    """Return how long something takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def headers_a_second(folder: Path, processes: int, work: Path) -> tuple[float, float]:
    """Return how many headers a second the index takes in, and how many bare pydicom reads; the best of several."""
    files = sorted(folder.rglob("*.dcm"))
    indexed, read = [], []
    for turn in range(REPEATS):
        index = work / f"index-{turn}.sqlite"
        indexed.append(seconds(partial(index_folder, [folder], index, processes=processes)))
        read.append(seconds(lambda: list(for_each_file(bare, files, processes))))
    return len(files) / min(indexed), len(files) / min(read)


def index_all(folder: Path, index: Path, answer: Any) -> None:
    """Index in this process and tell how much memory it took beyond what it began with, and how long, twice."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first = seconds(partial(index_folder, [folder], index, processes=1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    again = seconds(partial(index_folder, [folder], index, processes=1))
    answer.send({"mebibytes": round((peak - before) / 1024, 1), "first": round(first, 1), "again": round(again, 2)})


def memory_and_time(folder: Path, work: Path) -> dict[str, float]:
    """Index everything in a process of its own."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=index_all, args=(folder, work / "all.sqlite", theirs))
    child.start()
    theirs.close()
    answer: dict[str, float] = ours.recv()
    child.join()
    return answer


def main() -> None:
    """Measure once, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=100_000)
    parser.add_argument("--headers", type=int, default=4000)
    parser.add_argument("--distinct", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--elements", type=int, default=80, help="private elements in each header, beside some 20")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_archive(work / "headers", options.headers, options.headers, options.size, options.elements)
        ours, bare_rate = headers_a_second(work / "headers", options.processes, work)
        figures = {}
        for instances in sorted({max(1, options.instances // 10), options.instances}):
            tree = work / str(instances)
            make_archive(tree, instances, min(instances, options.distinct), options.size, options.elements)
            figures[str(instances)] = memory_and_time(tree, work / f"index-of-{instances}")
    sys.stdout.write(
        json.dumps(
            {
                "headers_a_second": round(ours),
                "bare_pydicom_a_second": round(bare_rate),
                "ratio": round(ours / bare_rate, 3),
                "processes": options.processes,
                "private_elements": options.elements,
                "instances": figures,
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
