"""How an image becomes a tensor, and presets for the usual modalities.

A preset is a set of stated values: where the study does not state one itself, the preset's is put into the study when
it is read. So a hospital approves the values, not a word whose meaning could change with a release.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from protocol.preprocessing_steps import MOST_STEPS, Step
from protocol.study_parts import Part

Preset = Literal["none", "chest-xray", "ct-abdomen", "ct-lung", "brain-mri", "mammography", "ultrasound"]
Hounsfield = Annotated[float, Field(ge=-100_000, le=100_000, allow_inf_nan=False)]

PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "none": {},
    # The heart is on one side, and so are liver and spleen: what is mirrored there is another patient.
    "chest-xray": {"size": [224, 224], "intensity": "percentile", "augmentation": "light", "mirror": False},
    # The windows at which these are read: soft tissue 400 HU wide at 40, lung 1500 HU wide at -600.
    "ct-abdomen": {
        "size": [96, 96, 96], "intensity": "window", "window": [-160, 240], "augmentation": "light", "mirror": False,
    },
    "ct-lung": {
        "size": [96, 96, 96], "intensity": "window", "window": [-1350, 150], "augmentation": "light", "mirror": False,
    },
    # MR has no unit: each image is scaled by itself.
    "brain-mri": {"size": [96, 96, 96], "intensity": "percentile", "augmentation": "light", "mirror": True},
    # A left breast is a mirrored right one; contrast carries the finding and is varied little.
    "mammography": {"size": [512, 512], "intensity": "percentile", "augmentation": "light", "mirror": True},
    "ultrasound": {"size": [224, 224], "intensity": "percentile", "augmentation": "medium", "mirror": True},
}  # fmt: skip
"""What each preset states."""


class Preprocessing(Part):
    """How an image becomes a tensor."""

    preset: Preset = Field(
        default="none", description="states the other values for a modality, where the study does not state them itself"
    )
    size: list[Annotated[int, Field(ge=8, le=1024)]] = Field(
        default=[64, 64],
        min_length=2,
        max_length=3,
        description="pixels after padding to a square and resizing: [height, width]; three numbers take volumes",
    )
    intensity: Literal["percentile", "minmax", "window"] = Field(
        default="percentile",
        description="each image is scaled by itself (percentile, minmax), or all by the same stated window; no "
        "statistic of the cohort is used",
    )
    window: list[Hounsfield] = Field(
        default=[],
        max_length=2,
        description="intensity window: [lowest, highest] value in the modality's unit (HU for CT); what lies outside "
        "is cut to it",
    )
    augmentation: Literal["none", "light", "medium"] = Field(
        default="light", description="how far images are shifted, turned, zoomed and changed in contrast in training"
    )
    mirror: bool = Field(
        default=False,
        description="half of the images are mirrored in training, left to right; not where the side has a meaning",
    )
    steps: list[Step] = Field(
        default=[],
        max_length=MOST_STEPS,
        description="in place of padding and `intensity`, for weights that were trained on other preparation: "
        "transforms of MONAI's in their order, each {transform: its name, and its arguments} (list: docs/bundles.md)",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_the_presets_values(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("preset") not in PRESETS:
            return data
        return {**PRESETS[data["preset"]], **data}
