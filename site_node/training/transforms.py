"""How an image becomes a tensor (MONAI transforms), and how a tensor is varied in training.

Preparation uses nothing but the image itself, so it needs no accounting: each image is scaled by its own percentiles,
padded to a square (a cube), resized, and standardised by its own mean and deviation; or, with a stated window, by the
window alone. It is deterministic.
Augmentation is drawn from the task's secret stream, so that a task that is run again sees the same pictures.

Orientation: rows downwards, columns rightwards, as stored; of a volume, the last axis runs from right to left. Images
are mirrored only where the study says so: on a radiograph the heart is on one side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import monai
import numpy as np
import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    NormalizeIntensity,
    Resize,
    ScaleIntensity,
    ScaleIntensityRange,
    SpatialPad,
)
from numpy.typing import NDArray
from torch import Tensor

from protocol.preprocessing import Preprocessing
from site_node.errors import PixelsError
from site_node.privacy.noise import SecureStream
from site_node.training.stepwise import prepared_picture

LOW_PERCENTILE = 0.5
HIGH_PERCENTILE = 99.5
VERSION = 1
"""Grows whenever preparation changes, so that cached images of an older release are not used."""

Picture = NDArray[np.float32]
Prepare = Callable[[Picture], Picture]
"""(*original size) -> (1, *study's size)"""


@dataclass(frozen=True)
class Variation:
    """How far an image is moved (fraction of its size), zoomed, turned (degrees), and its contrast changed."""

    shift: float
    zoom: float
    turn_degrees: float
    contrast: float


VARIATIONS = {
    "none": None,
    "light": Variation(shift=0.03, zoom=0.0, turn_degrees=0.0, contrast=0.1),
    "medium": Variation(shift=0.06, zoom=0.08, turn_degrees=6.0, contrast=0.2),
}


STILL = Variation(shift=0.0, zoom=0.0, turn_degrees=0.0, contrast=0.0)
"""What an image that is mirrored alone is varied by beside."""


def preparation(preprocessing: Preprocessing) -> Prepare:
    """Return what prepares one image; a volume of a study with steps comes from `stepwise.prepared_volume` instead.

    Shapes: (*original size) float32 -> (1, *preprocessing.size) float32, mean 0 and deviation 1 (0 for an even image);
        with a stated window from -1 to 1, its two ends.
    Raises (when called): PixelsError if the image has another number of dimensions than the study.
    """
    if preprocessing.steps:
        return partial(prepared_picture, preprocessing)
    monai.data.set_track_meta(False)
    channel_first = EnsureChannelFirst(channel_dim="no_channel")
    # In a window a value means the same at every patient, and goes on doing so: -1 is its lower end, 1 its upper.
    standard = NormalizeIntensity(0.5, 0.5) if preprocessing.intensity == "window" else NormalizeIntensity()
    then = Compose([Resize(preprocessing.size, mode="area"), standard])
    dimensions = len(preprocessing.size)

    def prepare(picture: Picture) -> Picture:
        if picture.ndim != dimensions:
            raise PixelsError(
                f"The study wants images of {dimensions} dimensions, this one has {picture.ndim}.",
                "Give preprocessing.size one number for each dimension of the images.",
            )
        pad = SpatialPad([max(picture.shape)] * dimensions)
        return np.asarray(then(pad(_scaling(picture, preprocessing)(channel_first(picture)))), np.float32)

    return prepare


def _scaling(picture: Picture, preprocessing: Preprocessing) -> Callable[[Picture], Picture]:
    if preprocessing.intensity == "window":
        return ScaleIntensityRange(*preprocessing.window, 0.0, 1.0, clip=True)  # type: ignore[no-any-return]
    if preprocessing.intensity == "percentile":
        low, high = np.percentile(picture, (LOW_PERCENTILE, HIGH_PERCENTILE))
        if high > low:  # an image that is nearly all of one value has only its extremes
            return ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)  # type: ignore[no-any-return]
    return ScaleIntensity(0.0, 1.0)  # type: ignore[no-any-return]


def augment(
    images: Tensor, kind: str, stream: SecureStream, *, mirror: bool = False, upright: Sequence[int] = ()
) -> Tensor:
    """Vary each image by itself.

    `upright`: which axis of an image is an upright one's first, second and last (`stepwise.upright_axes`).
    Shapes: images and result (image, 1, *size) float32.
    Guarantee: deterministic for the stream; what leaves the frame is filled from the border.
    """
    return _varied(images, None, kind, stream, mirror, upright)[0]


def augment_with_masks(
    images: Tensor,
    masks: Tensor,
    kind: str,
    stream: SecureStream,
    *,
    mirror: bool = False,
    upright: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    """Vary each image by itself, and move its mask with it.

    Shapes: images (image, 1, *size) float32, masks (image, *size) float32 of class numbers; the results likewise.
    Guarantee: the images are those of `augment`; a mask's numbers are moved, never mixed.
    """
    images, moved = _varied(images, masks.unsqueeze(1), kind, stream, mirror, upright)
    return images, masks if moved is None else moved.squeeze(1)


def _varied(
    images: Tensor, masks: Tensor | None, kind: str, stream: SecureStream, mirror: bool, upright: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    if list(upright) == sorted(upright):
        return _varied_upright(images, masks, kind, stream, mirror)
    there = [0, 1, *(axis + 2 for axis in upright)]
    back = [there.index(axis) for axis in range(len(there))]
    turned = None if masks is None else masks.permute(there)
    images, masks = _varied_upright(images.permute(there), turned, kind, stream, mirror)
    return images.permute(back).contiguous(), None if masks is None else masks.permute(back).contiguous()


def _varied_upright(
    images: Tensor, masks: Tensor | None, kind: str, stream: SecureStream, mirror: bool
) -> tuple[Tensor, Tensor | None]:
    variation = VARIATIONS[kind] or (STILL if mirror else None)
    if variation is None or not images.shape[0]:
        return images, masks
    dimensions = images.dim() - 2
    draws = torch.from_numpy(stream.uniforms(images.shape[0] * (dimensions + 4)) * 2.0 - 1.0)
    draws = draws.to(images.device, torch.float32).view(images.shape[0], dimensions + 4)
    matrix = _affine(draws, variation, dimensions)
    if mirror:  # drawn after the others, so that a study without it sees the same pictures as ever
        sides = torch.from_numpy(np.where(stream.uniforms(images.shape[0]) < 0.5, -1.0, 1.0))
        matrix[:, 0] *= sides.to(images.device, torch.float32)[:, None]  # the first row is of the last axis
    grid = torch.nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if masks is not None:
        masks = torch.nn.functional.grid_sample(masks, grid, mode="nearest", padding_mode="border", align_corners=False)
    shape = (-1, *[1] * (images.dim() - 1))
    gain = 1.0 + variation.contrast * draws[:, -1].view(shape)
    return moved * gain + variation.contrast * draws[:, -2].view(shape), masks


def _affine(draws: Tensor, variation: Variation, dimensions: int) -> Tensor:
    # (image, dimensions, dimensions + 1): zoom, a turn in the plane of the last two axes, and a shift in units of half
    # the image, as affine_grid wants them.
    angle = draws[:, dimensions] * np.deg2rad(variation.turn_degrees)
    zoom = 1.0 + variation.zoom * draws[:, dimensions + 1]
    matrix = torch.zeros(draws.shape[0], dimensions, dimensions + 1, device=draws.device)
    for axis in range(dimensions):
        matrix[:, axis, axis] = zoom
    matrix[:, 0, 0], matrix[:, 1, 1] = zoom * angle.cos(), zoom * angle.cos()
    matrix[:, 0, 1], matrix[:, 1, 0] = -zoom * angle.sin(), zoom * angle.sin()
    matrix[:, :, -1] = 2.0 * variation.shift * draws[:, :dimensions]
    return matrix
