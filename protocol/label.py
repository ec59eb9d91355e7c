"""Where a patient's label comes from."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from protocol.study_parts import Part, ShortText

MAX_CLASSES = 64


class Label(Part):
    """Where a patient's label comes from and how several images make one label and one score."""

    column: str = Field(
        default="label",
        max_length=64,
        description="column of the site's labels.csv, or of its table; survival: whether the event happened",
    )
    time_column: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="survival: column with the time until the event (the second class) or the last contact",
    )
    several: bool = Field(
        default=False, description="multi-label: a patient may have several of the classes, or none; each is a finding"
    )
    separator: Annotated[str, StringConstraints(min_length=1, max_length=4)] | None = Field(
        default=None,
        description="multi-label: `column` names the findings that are present, separated by this; null: each finding "
        "has a column of its own, named as the class, with 1, 0, or nothing where it is not known",
    )
    classes: list[ShortText] = Field(
        default=[],
        max_length=MAX_CLASSES,
        description="class names, at least two; label 0 is the first; segmentation: the background first; regression: "
        "none",
    )
    weights: list[Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]] = Field(
        default=[],
        max_length=MAX_CLASSES,
        description="rare classes: what an image's loss is multiplied with, a number for each class (multi-label: for "
        "each finding where it is present); stated here, never counted at a hospital; an empty list: 1",
    )
    balance: Literal["stated", "quality"] = Field(
        default="stated",
        description="rare classes, of two: the weights above, or each hospital's own, made of its noised quality "
        "figures (site_rates.adapt: quality), so that both classes count the same; 0.5 to 10",
    )
    focal: float = Field(
        default=0.0,
        ge=0,
        le=5,
        description="rare classes: focal loss; losses times (1 - p)^focal, p the probability of what is true; 0: not",
    )
    patient_label: Literal["any", "all", "majority"] = Field(
        default="any",
        description="a patient is positive if any / all / most of the images are; of several classes the last / the "
        "first / the most frequent of the images' classes; a tie is negative, or the first",
    )
    patient_score: Literal["mean", "max"] = Field(
        default="mean", description="a patient's score from the images' scores"
    )
