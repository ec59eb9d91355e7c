"""Read, prepare and score images as in training. Part of a MONAI Bundle that Wardround wrote: scripts/portable.py.

Needs MONAI with pydicom (and pytorch-ignite for `run`), and nothing of Wardround. In Wardround itself the same file is
`site_node/bundles/portable.py`, where tests hold it against what a hospital trains with.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from monai.networks.blocks import Convolution
from monai.transforms import (
    EnsureChannelFirst,
    NormalizeIntensity,
    Resize,
    ScaleIntensity,
    ScaleIntensityRange,
    SpatialPad,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
HIDDEN = "."
MISSING = {"", "na", "n/a", "nan", "null", "?"}


def in_bundle(name: str) -> str:
    """Return the path of a file of this bundle, from wherever it is run."""
    return str(Path(__file__).resolve().parents[1] / name)


def best_device() -> torch.device:
    """Return the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def on_device(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Move a network to a device."""
    return network.to(device)


def images_in(folder: str) -> list[dict[str, str]]:
    """Return every file below a folder as an item {"image": path}, in order of path."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name[0] != HIDDEN)
    return [{"image": str(path)} for path in paths]


def rows_in(folder: str) -> list[dict[str, Any]]:
    """Return each row of every CSV in a folder as an item {"image": its cells by column, "file": where it is}."""
    items: list[dict[str, Any]] = []
    for path in sorted(Path(folder).glob("*.csv")):
        with path.open(newline="", encoding="utf-8-sig") as file:
            items += [{"file": f"{path}:{line}", "image": row} for line, row in enumerate(csv.DictReader(file), 2)]
    return items


class StandardiseRow:
    """Make item["image"], a row's cells, the numbers that training saw: (value - mean) / deviation of each column."""

    def __init__(self, features: Sequence[Mapping[str, Any]]) -> None:
        self.features = list(features)

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the cells by a tensor (feature,) float32. Raises: ValueError where a value is missing."""
        values = [self._value(item["image"], feature) for feature in self.features]
        return {**item, "image": torch.from_numpy(np.array(values, np.float32))}

    @staticmethod
    def _value(row: Mapping[str, str], feature: Mapping[str, Any]) -> float:
        written = (row.get(feature["column"]) or "").strip()
        value = feature["missing"] if written.lower() in MISSING else float(written)
        if value is None:
            raise ValueError(f"A row has no value of {feature['column']!r}, and the study has none to stand in.")
        return float((value - feature["mean"]) / feature["deviation"])


class ReadGrey:
    """Read item["image"], a DICOM file of one frame, as the grey picture that training saw.

    Shapes: (row, column) float32. Rescaled values (HU for CT); MONOCHROME1 is inverted within the image's own range;
    colour becomes luminance (ITU-R BT.601); window and level are not applied.
    """

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the path by the picture, and keep the path beside it. Raises: ValueError for several frames."""
        dataset = pydicom.dcmread(item["image"], force=True)
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            raise ValueError("The image holds several frames; give single-frame images.")
        return {**item, "file": str(item["image"]), "image": grey(dataset)}


def grey(dataset: Dataset) -> NDArray[np.float32]:
    """Decode a single-frame image as grey values."""
    stored = pixel_array(dataset, index=0)
    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        return _luminance(stored)
    picture = _rescaled(stored, dataset)
    if photometric == "MONOCHROME1":
        picture = picture.max() + picture.min() - picture
    return np.ascontiguousarray(picture)


def _luminance(colour: NDArray[Any]) -> NDArray[np.float32]:
    if colour.shape[-1] < LUMINANCE.size:
        return np.ascontiguousarray(colour[..., 0].astype(np.float32))
    return np.asarray(colour[..., : LUMINANCE.size].astype(np.float32) @ LUMINANCE, np.float32)


def _rescaled(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.float32]:
    for keyword in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in dataset.get(keyword) or []:
            for values in group.get("PixelValueTransformationSequence") or []:
                return np.asarray(stored * float(values.RescaleSlope) + float(values.RescaleIntercept), np.float32)
    return np.asarray(apply_modality_lut(stored, dataset), np.float32)


class PrepareGrey:
    """Scale item["image"] by its own range or a stated window, pad it to a square, resize and standardise it.

    Shapes: (*original size) float32 -> (1, *size) float32, mean 0 and deviation 1, or with a window from -1 to 1, its
    two ends; rounded to half precision as the pictures of training were.
    """

    def __init__(self, size: Sequence[int], intensity: str = "percentile", window: Sequence[float] = ()) -> None:
        if intensity not in ("percentile", "minmax", "window"):
            raise ValueError(f"The scaling {intensity!r} is not known.")
        self.size, self.intensity, self.window = tuple(size), intensity, tuple(window)
        self.channel_first = EnsureChannelFirst(channel_dim="no_channel")

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the picture by the tensor. Raises: ValueError if it has another number of dimensions."""
        picture = item["image"]
        if picture.ndim != len(self.size):
            raise ValueError(f"The model wants images of {len(self.size)} dimensions, this one has {picture.ndim}.")
        pad = SpatialPad([max(picture.shape)] * picture.ndim)
        resize = Resize(self.size, mode="area")
        standard = NormalizeIntensity(0.5, 0.5) if self.intensity == "window" else NormalizeIntensity()
        prepared = standard(resize(pad(self._scaling(picture)(self.channel_first(picture)))))
        rounded = np.asarray(prepared, np.float32).astype(np.float16).astype(np.float32)
        return {**item, "image": torch.from_numpy(rounded)}

    def _scaling(self, picture: NDArray[np.float32]) -> Any:
        if self.intensity == "window":
            return ScaleIntensityRange(*self.window, 0.0, 1.0, clip=True)
        if self.intensity == "percentile":
            low, high = np.percentile(picture, (LOW_PERCENTILE, HIGH_PERCENTILE))
            if high > low:
                return ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)
        return ScaleIntensity(0.0, 1.0)


class Rounded:
    """Round item["image"] to half precision, as the pictures of training were. Shapes: as they come, float32."""

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the prepared image by the tensor that the network sees."""
        prepared = np.asarray(item["image"], np.float32)
        return {**item, "image": torch.from_numpy(prepared.astype(np.float16).astype(np.float32))}


class GridAverage(nn.Module):
    """Average an image over a grid of `cells` along each axis."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Shapes: (image, channel, *size) -> (image, channel, *cells)."""
        two = maps.dim() == 4
        size = [int(length) for length in maps.shape[2:]]
        if any(length % self.cells for length in size):
            return (functional.adaptive_avg_pool2d if two else functional.adaptive_avg_pool3d)(maps, self.cells)
        return (functional.avg_pool2d if two else functional.avg_pool3d)(maps, [s // self.cells for s in size])


def convnet(
    spatial_dims: int, out_channels: int, channels: Sequence[int], strides: Sequence[int], kernels: Sequence[int],
    head: int,
) -> nn.Module:  # fmt: skip
    """Build convolutions with BatchNorm, and a linear layer on a grid of averages. Reads one channel."""
    layers: list[nn.Module] = []
    before = 1
    for after, stride, kernel in zip(channels, strides, kernels, strict=True):
        layers.append(
            Convolution(
                spatial_dims, before, after, strides=stride, kernel_size=kernel, adn_ordering="NA", norm="batch",
                act="relu", bias=False,
            )
        )  # fmt: skip
        before = after
    final = nn.Linear(before * head**spatial_dims, out_channels)
    return nn.Sequential(*layers, GridAverage(head), nn.Flatten(), final)


def perceptron(features: int, hidden: Sequence[int], out_channels: int = 1) -> nn.Module:
    """Build linear layers with a ReLU between them; without hidden ones, a single linear layer."""
    if not hidden:
        return nn.Linear(features, out_channels)
    layers: list[nn.Module] = []
    for width, before in zip(hidden, [features, *hidden], strict=False):
        layers += [nn.Linear(before, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], out_channels))


def normalised(network: nn.Module, kind: str, groups: int = 8) -> nn.Module:
    """Put another normalisation in the place of each BatchNorm of a network: group, instance, layer or none."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                features = child.num_features
                number = {"group": math.gcd(groups, features), "instance": features, "layer": 1}
                layer = nn.GroupNorm(number[kind], features) if kind in number else nn.Identity()
                setattr(parent, name, layer)
    return network


class ScoresWriter:
    """Write what the network says of each file to a CSV: an ignite handler for MONAI's evaluator."""

    def __init__(self, path: str, columns: Sequence[str]) -> None:
        self.path, self.columns = Path(path), list(columns)
        self.rows: list[list[str]] = []

    def attach(self, engine: Any) -> None:
        """Collect after each batch, and write at the end."""
        from ignite.engine import Events

        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _collect(self, engine: Any) -> None:
        for read, found in zip(engine.state.batch, engine.state.output, strict=True):
            values = torch.as_tensor(found["pred"]).detach().cpu().double().reshape(-1).tolist()
            self.rows.append([str(read["file"]), *map(repr, values)])

    def _write(self, engine: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["file", *self.columns], *self.rows])


class InUnits:
    """Turn item["pred"], a part of the range, into the number that it stands for."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Shapes: (1,) -> (1,)."""
        return {**item, "pred": self.low + (self.high - self.low) * torch.as_tensor(item["pred"]).clamp(0.0, 1.0)}


class MasksWriter(ScoresWriter):
    """Write each image's mask of class numbers as .npy, on the prepared image's grid; a CSV beside names them."""

    def __init__(self, path: str) -> None:
        super().__init__(path, ["mask"])

    def _collect(self, engine: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for read, found in zip(engine.state.batch, engine.state.output, strict=True):
            mask = self.path.parent / f"mask-{len(self.rows):06d}.npy"
            np.save(mask, torch.as_tensor(found["pred"]).detach().cpu().numpy().astype(np.uint8)[0])
            self.rows.append([str(read["file"]), mask.name])


def run(evaluator: Any) -> None:
    """Run MONAI's evaluator over all images."""
    evaluator.run()
