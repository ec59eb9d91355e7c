"""What a study of segmentation or regression learns by: the loss, and the range of what is measured."""

from typing import Annotated, Literal

from pydantic import Field

from protocol.study_parts import Part, Positive

Number = Annotated[float, Field(allow_inf_nan=False)]


class Segmentation(Part):
    """What a segmentation study minimises; `label.classes` names what its masks hold, the background first."""

    loss: Literal["dice-cross-entropy", "dice", "cross-entropy"] = Field(
        default="dice-cross-entropy",
        description="of each image by itself: MONAI's Dice loss over the classes but the background, the mean cross "
        "entropy of its pixels, or their sum",
    )


class Regression(Part):
    """Which numbers a regression study learns, and what it minimises."""

    low: Number = Field(default=0.0, description="the smallest value of label.column; an image below it falls out")
    high: Number = Field(default=1.0, description="the largest; the network learns (value - low) / (high - low)")
    unit: Annotated[str, Field(max_length=40)] = Field(default="", description="of the values, as pages show it")
    loss: Literal["huber", "squared"] = Field(
        default="huber", description="of (value - low) / (high - low): squared, or only up to huber_delta"
    )
    huber_delta: Positive = Field(
        default=0.1, le=1, description="huber: from this error on, as a part of the range, the loss grows evenly"
    )
