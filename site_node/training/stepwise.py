"""Images and masks prepared step by step, as a study's `preprocessing.steps` say: MONAI's transforms, in their order.

What goes in is what MONAI's own reader would give: of a picture columns first, of a volume its voxels with their place
in the patient (RAS mm). So the network sees what the bundle's pipeline would have shown it (tests hold the two against
each other), but for what `dicom/pixels.py` does for every study: MONOCHROME1 and colour become grey, bright is more.
A mask goes the image's way through every step that moves voxels, by the nearest neighbour. Each image is prepared by
itself, and nothing is drawn at random.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai import transforms
from monai.data import MetaTensor
from nibabel import orientations
from numpy.typing import NDArray
from torch import Tensor

from protocol import preprocessing_steps as steps
from protocol.preprocessing import Preprocessing
from site_node.dicom.series import Stack
from site_node.dicom.volume import Volume, read_volume
from site_node.dicom.volume_affine import Affine
from site_node.dicom.volume_tilt import straightened, straightened_mask
from site_node.errors import PixelsError

Picture = NDArray[np.float32]
VERSION = 1
"""Grows whenever this changes, so that cached images and masks of an older release are not used."""


@dataclass(frozen=True)
class Placed:
    """An image on its way. Shapes: image and mask (1, *size) float32; affine (4, 4) from voxels to RAS mm."""

    image: Tensor
    mask: Tensor | None = None
    affine: Affine | None = None


def prepared_picture(preprocessing: Preprocessing, picture: Picture) -> Picture:
    """Prepare a picture. Shapes: (row, column) -> (1, *preprocessing.size).

    Raises: PixelsError if it cannot be prepared.
    """
    return _image_of(_through(preprocessing, Placed(_columns_first(picture))))


def prepared_picture_mask(preprocessing: Preprocessing, picture: Picture, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bring a picture's mask the way of the picture. Shapes: (row, column) both -> preprocessing.size."""
    return _mask_of(_through(preprocessing, Placed(_columns_first(picture), _columns_first(mask))))


def prepared_volume(preprocessing: Preprocessing, paths: Sequence[Path]) -> Picture:
    """Read and prepare a series. Shapes: result (1, *preprocessing.size).

    Raises: SeriesError, PixelsError or UnreadableError if the files make no volume any more, or it cannot be prepared.
    """
    return _image_of(_through(preprocessing, _placed(straightened(read_volume(paths)), None)))


def prepared_volume_mask(
    preprocessing: Preprocessing, paths: Sequence[Path], mask: NDArray[np.uint8], stack: Stack
) -> NDArray[np.uint8]:
    """Bring a volume's mask the way of the volume.

    Shapes: mask (slice, row, column) as `read_volume` gives the volume of this stack; result preprocessing.size.
    """
    straight, _ = straightened_mask(mask, stack)
    return _mask_of(_through(preprocessing, _placed(straightened(read_volume(paths, stack)), straight)))


def upright_axes(preprocessing: Preprocessing) -> tuple[int, ...]:
    """Return which axis of a prepared image lies where an upright one has its first, second and last axis.

    Upright is (rows, columns), or (along the body, front and back, the two sides): what augmentation turns and mirrors.

    >>> upright_axes(Preprocessing())
    (0, 1)
    """
    dimensions = len(preprocessing.size)
    if not preprocessing.steps:
        return tuple(range(dimensions))
    turns = [step.axcodes for step in preprocessing.steps if isinstance(step, steps.Orientation)]
    if not turns:
        return tuple(reversed(range(dimensions)))
    return tuple(next(n for n, letter in enumerate(turns[-1]) if letter in pair) for pair in ("SI", "AP", "RL"))


def _columns_first(picture: NDArray[Any]) -> Tensor:
    if picture.ndim != 2:
        raise PixelsError(
            f"The study wants pictures, and this image has {picture.ndim} dimensions.",
            "Give preprocessing.size one number for each dimension of the images.",
        )
    return torch.from_numpy(np.ascontiguousarray(picture.T, np.float32))[None]


def _placed(volume: Volume, mask: NDArray[np.uint8] | None) -> Placed:
    moved = None if mask is None else torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None]
    return Placed(torch.from_numpy(np.ascontiguousarray(volume.values))[None], moved, volume.affine)


def _through(preprocessing: Preprocessing, placed: Placed) -> Placed:
    monai.data.set_track_meta(False)
    for step in preprocessing.steps:
        placed = _APPLY[type(step)](step, placed)
    return placed


def _image_of(placed: Placed) -> Picture:
    return np.asarray(placed.image, np.float32)


def _mask_of(placed: Placed) -> NDArray[np.uint8]:
    if placed.mask is None:
        raise PixelsError("A mask was lost on its way.", "Tell us.")
    values: NDArray[np.uint8] = np.asarray(placed.mask[0], np.uint8)
    return values


def _of_values(transform: Callable[[Any], Callable[[Tensor], Tensor]]) -> Callable[[Any, Placed], Placed]:
    """Return what applies a transform of values, which a mask has no part in."""
    return lambda step, placed: replace(placed, image=torch.as_tensor(transform(step)(placed.image)))


def _of_both(transform: Callable[[Any], Callable[[Tensor], Tensor]]) -> Callable[[Any, Placed], Placed]:
    """Return what applies a transform that moves whole voxels, to a mask as to its image."""

    def apply(step: Any, placed: Placed) -> Placed:
        move = transform(step)
        mask = None if placed.mask is None else torch.as_tensor(move(placed.mask))
        return replace(placed, image=torch.as_tensor(move(placed.image)), mask=mask)

    return apply


def _orientation(step: steps.Orientation, placed: Placed) -> Placed:
    affine = _known(placed.affine)
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(step.axcodes))

    def turned(voxels: Tensor) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(orientations.apply_orientation(voxels.numpy()[0], turn)))[None]

    mask = None if placed.mask is None else turned(placed.mask)
    moved = np.asarray(affine @ orientations.inv_ornt_aff(turn, placed.image.shape[1:]), np.float64)
    return Placed(turned(placed.image), mask, moved)


def _spacing(step: steps.Spacing, placed: Placed) -> Placed:
    affine = _known(placed.affine)
    space = transforms.Spacing(step.pixdim)
    image = torch.as_tensor(space(MetaTensor(placed.image, affine=affine)))
    mask = (
        None
        if placed.mask is None
        else torch.as_tensor(space(MetaTensor(placed.mask, affine=affine), mode="nearest")).round()
    )
    wider = monai.data.utils.zoom_affine(affine, np.array(step.pixdim), diagonal=False)
    _, offset = monai.data.utils.compute_shape_offset(placed.image.shape[1:], affine, wider, False)
    moved = np.array(wider, np.float64)
    moved[:3, 3] = np.asarray(offset, np.float64)[:3]
    return Placed(image, mask, moved)


def _crop_foreground(step: steps.CropForeground, placed: Placed) -> Placed:
    if not bool((placed.image > 0).any()):
        return placed  # cut to nothing it would be no image
    crop = transforms.CropForeground(margin=step.margin, allow_smaller=step.allow_smaller)
    first, last = crop.compute_bounding_box(placed.image)

    def cut(voxels: Tensor) -> Tensor:
        return torch.as_tensor(crop.crop_pad(voxels, first, last))

    mask = None if placed.mask is None else cut(placed.mask)
    return replace(placed, image=cut(placed.image), mask=mask)


def _resize(step: steps.Resize, placed: Placed) -> Placed:
    linear = "trilinear" if len(step.spatial_size) == 3 else "bilinear"
    image = transforms.Resize(step.spatial_size, mode=linear if step.mode == "linear" else "area")(placed.image)
    if placed.mask is None:
        return replace(placed, image=torch.as_tensor(image))
    mask = transforms.Resize(step.spatial_size, mode="nearest-exact")(placed.mask)
    return replace(placed, image=torch.as_tensor(image), mask=torch.as_tensor(mask))


def _known(affine: Affine | None) -> Affine:
    if affine is None:
        raise PixelsError("A picture has no place in the patient.", "Ask for a study without this step.")
    return affine


_APPLY: Mapping[type[Any], Callable[[Any, Placed], Placed]] = {
    steps.Orientation: _orientation,
    steps.Spacing: _spacing,
    steps.ScaleIntensity: _of_values(lambda step: transforms.ScaleIntensity(step.minv, step.maxv)),
    steps.ScaleIntensityRange: _of_values(
        lambda step: transforms.ScaleIntensityRange(step.a_min, step.a_max, step.b_min, step.b_max, clip=step.clip)
    ),
    steps.ScaleIntensityRangePercentiles: _of_values(
        lambda step: transforms.ScaleIntensityRangePercentiles(
            step.lower, step.upper, step.b_min, step.b_max, clip=step.clip
        )
    ),
    steps.NormalizeIntensity: _of_values(
        lambda step: transforms.NormalizeIntensity(step.subtrahend, step.divisor, nonzero=step.nonzero)
    ),
    steps.CropForeground: _crop_foreground,
    steps.SpatialPad: _of_both(lambda step: transforms.SpatialPad(step.spatial_size)),
    steps.CenterSpatialCrop: _of_both(lambda step: transforms.CenterSpatialCrop(step.roi_size)),
    steps.Resize: _resize,
    steps.ResizeWithPadOrCrop: _of_both(lambda step: transforms.ResizeWithPadOrCrop(step.spatial_size)),
}
