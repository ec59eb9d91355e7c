"""Preparation step by step, in MONAI's own words: what a model that was trained elsewhere was trained on.

A study's own preparation (`preprocessing.py`) is one fixed order. A network that comes with weights saw images prepared
in another, and means nothing on others; so a study may name the steps, each a transform of MONAI's with its arguments.
The list is closed: each step uses the image alone, gives the same on any machine, and runs nothing that was written
elsewhere. The names of transforms and arguments are MONAI's, so that the two can be read beside each other.

    >>> from pydantic import TypeAdapter
    >>> TypeAdapter(Step).validate_python({"transform": "Spacing", "pixdim": [1.5, 1.5, 2]}).pixdim
    [1.5, 1.5, 2.0]
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from protocol.study_parts import Part

MOST_STEPS = 20

Value = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Scaled = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]
"""What values become: half precision holds it."""
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Edge = Annotated[int, Field(ge=1, le=1024)]
Edges = Annotated[list[Edge], Field(min_length=2, max_length=3)]


class Orientation(Part):
    """Turn a volume by whole axes: the way each axis goes (RAS: to the right, to the front, to the head)."""

    transform: Literal["Orientation"]
    axcodes: Annotated[str, StringConstraints(pattern=r"^[RLAPSI]{3}$")]


class Spacing(Part):
    """Resample a volume to this distance between voxels along each axis, linearly. Units: mm."""

    transform: Literal["Spacing"]
    pixdim: Annotated[list[Annotated[float, Field(ge=0.05, le=50)]], Field(min_length=3, max_length=3)]


class ScaleIntensity(Part):
    """Scale linearly, the image's lowest value to `minv`, its highest to `maxv`."""

    transform: Literal["ScaleIntensity"]
    minv: Scaled = 0.0
    maxv: Scaled = 1.0


class ScaleIntensityRange(Part):
    """Scale linearly, `a_min` to `b_min` and `a_max` to `b_max` (of CT, a in HU); `clip` cuts what lies outside."""

    transform: Literal["ScaleIntensityRange"]
    a_min: Value
    a_max: Value
    b_min: Scaled
    b_max: Scaled
    clip: bool = False


class ScaleIntensityRangePercentiles(Part):
    """Scale linearly, the image's `lower` percentile to `b_min`, its `upper` to `b_max`; `clip` as above."""

    transform: Literal["ScaleIntensityRangePercentiles"]
    lower: Percent
    upper: Percent
    b_min: Scaled
    b_max: Scaled
    clip: bool = False


class NormalizeIntensity(Part):
    """Take off `subtrahend`, divide by `divisor`; null: the mean and deviation (`nonzero`: of what is not 0)."""

    transform: Literal["NormalizeIntensity"]
    subtrahend: Value | None = None
    divisor: Annotated[float, Field(gt=0, le=1e6)] | None = None
    nonzero: bool = False


class CropForeground(Part):
    """Cut the image to the box of all values above 0, and `margin` around it; one without any is left whole."""

    transform: Literal["CropForeground"]
    margin: Annotated[int, Field(ge=0, le=256)] = 0
    allow_smaller: bool = False


class SpatialPad(Part):
    """Pad with 0 on both sides to at least this size."""

    transform: Literal["SpatialPad"]
    spatial_size: Edges


class CenterSpatialCrop(Part):
    """Cut around the centre to at most this size."""

    transform: Literal["CenterSpatialCrop"]
    roi_size: Edges


class Resize(Part):
    """Resize to this size whatever the proportions, by averages over areas or linearly."""

    transform: Literal["Resize"]
    spatial_size: Edges
    mode: Literal["area", "linear"] = "area"


class ResizeWithPadOrCrop(Part):
    """Pad with 0, or cut around the centre, to this size; nothing is scaled."""

    transform: Literal["ResizeWithPadOrCrop"]
    spatial_size: Edges


Step = Annotated[
    Orientation
    | Spacing
    | ScaleIntensity
    | ScaleIntensityRange
    | ScaleIntensityRangePercentiles
    | NormalizeIntensity
    | CropForeground
    | SpatialPad
    | CenterSpatialCrop
    | Resize
    | ResizeWithPadOrCrop,
    Field(discriminator="transform"),
]
SCALINGS = (ScaleIntensity, ScaleIntensityRange, ScaleIntensityRangePercentiles, NormalizeIntensity)
"""Steps that bring values to the size that a network reads, and half precision holds."""
SIZINGS = (Resize, ResizeWithPadOrCrop)
"""Steps after which each image has the same size."""
OF_VOLUMES = (Orientation, Spacing)
"""Steps that need to know where a voxel lies in the patient."""
MOST_VOXELS = 1 << 27
"""That a step may make of a volume: resampling holds some 32 bytes for each."""


def voxels_after_spacing(steps: Sequence[Step], lengths_mm: Sequence[float]) -> float:
    """Return the most voxels that a Spacing among these steps makes of a volume with sides of these lengths.

    >>> voxels_after_spacing([Spacing(transform="Spacing", pixdim=[1, 1, 2])], [100, 100, 100])
    500000.0
    """
    finest = [math.prod(step.pixdim) for step in steps if isinstance(step, Spacing)]
    return math.prod(lengths_mm) / min(finest) if finest else 0.0
