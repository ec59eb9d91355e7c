"""From DICOM to tensor: images a second of the hospital's node against MONAI's plain loader, taking turns in one run.

    python -m tests.benchmarks.throughput --images 400 --size 128 --repeats 3 --out throughput.json
    python -m tests.benchmarks.throughput --intensity minmax    # without percentiles, which cost MONAI more than us

Each repeat takes the same files, in turn:

    ours, first epoch   decoded, prepared and sealed into a new cache, then read back in batches
    ours, later         read back in batches from the cache, decrypted image by image
    monai               LoadImaged, EnsureChannelFirstd and the same scaling, padding, resizing and standardising, in a
                        Dataset and DataLoader without workers, each epoch anew: as a plain loader has no cache
    monai, cached       the same transforms in MONAI's CacheDataset, second epoch: everything in memory, unencrypted

One process and one thread each; MONAI carries no metadata along here, which makes it quicker than by default. The
tensors of both are compared: they are equal to half precision's rounding.
"""

import argparse
import functools
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, Dataset
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    NormalizeIntensityd,
    Resized,
    ScaleIntensityd,
    ScaleIntensityRangePercentilesd,
    SpatialPad,
)
from numpy.typing import NDArray

from protocol.study import StudySpec, parse_study
from site_node.cohort.cohort import Cohort, ImageRef, Patient
from site_node.dicom.pixels import read_pixels
from site_node.training.patients import prepare_cohort
from site_node.training.pixel_cache import PixelCache
from site_node.training.prepared_patients import PreparedPatients
from tests.fakes.dicom import make_dataset, save

BATCH = 32
HALF_PRECISION = 2e-2
Images = Iterator[NDArray[np.float32]]


def write_images(folder: Path, count: int, edge: int) -> list[Path]:
    """Write made-up radiographs of 16 bits, `edge` x 0.8 `edge` pixels each."""
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        pixels = generator.normal(2000, 400, (edge, int(0.8 * edge))).clip(0, 4095).astype(np.uint16)
        paths.append(save(make_dataset(pixels, f"P{number}"), folder / f"{number:06d}.dcm"))
    return paths


def study_of(size: int, intensity: str) -> StudySpec:
    """Return a study of images of this size."""
    return parse_study(
        {
            "name": "throughput",
            "label": {"classes": ["no", "yes"]},
            "preprocessing": {"size": [size, size], "intensity": intensity},
            "network": {"name": "convnet"},
            "rounds": 1,
            "privacy": {"epsilon": None},
        }
    )


def cohort_of(paths: list[Path]) -> Cohort:
    """Return a cohort of one patient an image."""
    patients = tuple(
        Patient(key=path.stem, images=(ImageRef(path, path.stem, None),), label=number % 2, split="train")
        for number, path in enumerate(paths)
    )
    return Cohort(patients, "sha256:" + "0" * 64)


def our_epoch(study: StudySpec, cohort: Cohort, cache: PixelCache) -> Images:
    """Yield an epoch's batches as training reads them."""
    patients: PreparedPatients = prepare_cohort(study, cohort, ["train"], cache)["train"]
    for start in range(0, len(patients.rows), BATCH):
        numbers = np.arange(start, min(start + BATCH, len(patients.rows)))
        yield patients.pixels_of(numbers).numpy()


def monai_transforms(size: int, intensity: str) -> Compose:
    """Return our preparation in MONAI's own transforms, with padding to the longest side as a lambda."""
    percentile = ScaleIntensityRangePercentilesd("image", 0.5, 99.5, 0.0, 1.0, clip=True)
    return Compose(
        [
            LoadImaged("image", image_only=True, swap_ij=False),
            EnsureChannelFirstd("image", channel_dim="no_channel"),
            percentile if intensity == "percentile" else ScaleIntensityd("image"),
            Lambdad("image", lambda image: SpatialPad([max(image.shape[1:])] * 2)(image)),
            Resized("image", (size, size), mode="area"),
            NormalizeIntensityd("image"),
        ]
    )


def monai_epoch(dataset: Dataset) -> Images:
    """Yield an epoch's batches of MONAI's DataLoader."""
    for batch in DataLoader(dataset, batch_size=BATCH, num_workers=0):
        yield np.asarray(batch["image"])


def rate(epoch: Callable[[], Images], count: int) -> tuple[float, list[NDArray[np.float32]]]:
    """Return images a second of one epoch, and its batches."""
    start = time.perf_counter()
    batches = list(epoch())
    return count / (time.perf_counter() - start), batches


def measured(count: int, edge: int, size: int, repeats: int, intensity: str = "percentile") -> dict[str, Any]:
    """Return every figure of a run."""
    warnings.simplefilter("ignore")  # MONAI says for each made-up image that it has no orientation
    rates: dict[str, list[float]] = {"ours_first": [], "ours_later": [], "monai": [], "monai_cached": []}
    farthest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder) / "images", count, edge)
        study, cohort = study_of(size, intensity), cohort_of(paths)
        items, transforms = [{"image": str(path)} for path in paths], monai_transforms(size, intensity)
        for path in paths:
            read_pixels(path)  # in the page cache for everybody
        in_memory = CacheDataset(items, transforms, progress=False, num_workers=1)
        for repeat in range(repeats):
            cache = PixelCache(Path(folder) / f"cache-{repeat}", Path(folder) / "key")
            turns: dict[str, Callable[[], Images]] = {
                "ours_first": functools.partial(our_epoch, study, cohort, cache),
                "monai": lambda: monai_epoch(Dataset(items, transforms)),
                "ours_later": functools.partial(our_epoch, study, cohort, cache),
                "monai_cached": lambda: monai_epoch(in_memory),
            }
            found = {}
            for name, epoch in turns.items():
                images_a_second, found[name] = rate(epoch, count)
                rates[name].append(images_a_second)
            pairs = zip(found["ours_later"], found["monai"], strict=True)
            farthest = max(farthest, *(float(np.abs(one - other).max()) for one, other in pairs))
    if farthest > HALF_PRECISION:
        raise SystemExit(f"The tensors differ by {farthest}: what was measured is not the same work.")
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    return {
        "images": count,
        "edge": edge,
        "size": size,
        "repeats": repeats,
        "intensity": intensity,
        "images_a_second": medians,
        "all": {name: [round(value, 1) for value in values] for name, values in rates.items()},
        "first_to_monai": round(medians["ours_first"] / medians["monai"], 3),
        "later_to_monai": round(medians["ours_later"] / medians["monai"], 3),
        "farthest": farthest,
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="DICOM to tensor, against MONAI's plain loader")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--edge", type=int, default=1024, help="rows of an original")
    parser.add_argument("--size", type=int, default=128, help="of a tensor")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--intensity", choices=["percentile", "minmax"], default="percentile")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = (arguments.images, arguments.edge, arguments.size, arguments.repeats)
    found = json.dumps(measured(*sizes, arguments.intensity), indent=2)
    if arguments.out:
        arguments.out.write_text(found + "\n", encoding="utf-8")
    print(found)  # noqa: T201


if __name__ == "__main__":
    main()
