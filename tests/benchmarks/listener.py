"""How many images a second the listener takes from dcmtk's storescu over one association, each synced before it is
answered.

python -m tests.benchmarks.listener --images 300 --size 512
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.fakes.dcmtk import Modality
from tests.fakes.dicom import make_dataset, save
from tests.fakes.running_listener import make_site, running_listener


def seconds_for(folder: Path, images: int, size: int) -> float:
    """Return how long sending so many square 16-bit images takes, begin and end of storescu included."""
    generator = np.random.default_rng(0)
    files = []
    for number in range(images):
        pixels = generator.integers(0, 4096, (size, size), dtype=np.uint16)
        files.append(save(make_dataset(pixels, "P1", str(number)), folder / "files" / f"{number}.dcm"))
    with running_listener(make_site(folder)) as running:
        begun = time.perf_counter()
        statuses = Modality(running.port).send(files).statuses
        taken = time.perf_counter() - begun
    if list(statuses.values()) != [0] * images:
        raise RuntimeError("not every image was taken")
    return taken


def main() -> None:
    """Measure once, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        taken = seconds_for(Path(folder), options.images, options.size)
    megabytes = options.images * options.size**2 * 2 / 1e6
    sys.stdout.write(f"{options.images / taken:.0f} images/s, {megabytes / taken:.0f} MB/s ({taken:.1f} s)\n")


if __name__ == "__main__":
    main()
