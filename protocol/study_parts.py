"""The parts of a study specification: which data, which network, how it is trained, averaged, protected and judged.

Each is frozen, closed against misspelt keys, and documents its fields: the launch form, the JSON Schema and
`docs/study_specification.md` are made from these descriptions. `study.py` puts them together.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
ShortText = Annotated[str, StringConstraints(max_length=200)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Split = Literal["train", "validation", "test"]
HeldOutSplit = Literal["validation", "test"]


class Part(BaseModel):
    """A part of the specification: frozen, and closed against misspelt keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Cohort(Part):
    """Which images take part, by DICOM header terms; an empty list leaves that criterion open."""

    modality: list[str] = Field(default=[], description="DICOM Modality (0008,0060), any of these: DX, CR, CT, MR ...")
    body_part: list[str] = Field(default=[], description="Body Part Examined (0018,0015), any of these")
    view: list[str] = Field(default=[], description="View Position (0018,5101), any of these: AP, PA ...")
    age_min_years: int | None = Field(default=None, ge=0, le=130)
    age_max_years: int | None = Field(default=None, ge=0, le=130)
    sex: list[Literal["F", "M", "O"]] = Field(default=[], description="Patient's Sex (0010,0040), any of these")
    minimum_patients: int = Field(default=10, ge=1, description="a site with fewer training patients does not train")


class Label(Part):
    """Where a patient's label comes from and how several images make one label and one score."""

    column: str = Field(default="label", max_length=64, description="column of the site's labels.csv")
    classes: list[ShortText] = Field(min_length=2, max_length=64, description="class names; label 0 is the first")
    patient_label: Literal["any", "all", "majority"] = Field(
        default="any", description="a patient is positive if any / all / most of the images are"
    )
    patient_score: Literal["mean", "max"] = Field(
        default="mean", description="a patient's score from the images' scores"
    )


class Splits(Part):
    """Fractions of patients held out, where labels.csv names no split. Drawn by a keyed hash of the patient."""

    validation: Fraction = 0.1
    test: Fraction = 0.2


class Preprocessing(Part):
    """How an image becomes a tensor."""

    size: list[Annotated[int, Field(ge=8, le=1024)]] = Field(
        default=[64, 64],
        min_length=2,
        max_length=3,
        description="pixels after padding to a square and resizing: [height, width]",
    )
    intensity: Literal["percentile", "minmax"] = Field(
        default="percentile", description="each image is scaled by itself; no statistic of the cohort is used"
    )
    augmentation: Literal["none", "light", "medium"] = "light"


class Network(Part):
    """A permitted network (`site_node/training/networks.py`) and its size."""

    name: str = Field(max_length=64, description="densenet, resnet, ... : see `wardround site networks`")
    normalisation: Literal["group", "instance", "layer", "batch", "none"] = "group"
    arguments: dict[str, int | float | bool | str | list[int]] = Field(
        default={}, description="size arguments of the network; unknown ones are refused when the network is built"
    )


class Training(Part):
    """What a site does in one round."""

    local_steps: int = Field(default=10, ge=1, le=100_000, description="optimiser steps a round")
    sampling_rate: float = Field(
        default=0.1, gt=0, le=1, description="each patient is drawn independently with this probability at each step"
    )
    images_per_patient: int = Field(
        default=4, ge=1, le=64, description="at most so many of a drawn patient's images a step"
    )
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Positive = 0.1
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    schedule: Literal["constant", "cosine"] = Field(default="constant", description="learning rate over the rounds")


class Strategy(Part):
    """How the hub makes the next version from the updates."""

    name: Literal["fedavg"] = "fedavg"
    weighting: Literal["patients", "equal"] = "patients"
    learning_rate: Positive = Field(default=1.0, description="the hub's step along the mean update")
    averaging: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="versions also carry an exponential mean of the weights, with this decay; 0: off",
    )


class Participants(Part):
    """Who must be there."""

    minimum_sites: int = Field(default=2, ge=1, le=10_000, description="approvals needed before the study may start")
    quorum: float = Field(
        default=0.5, gt=0, le=1, description="fraction of the asked sites that closes a round at its deadline"
    )
    deadline_seconds: Positive = Field(default=3600.0, description="a round that has its quorum closes after this time")
    training_patients: int | None = Field(
        default=None,
        ge=1,
        description="training patients expected in the whole federation; required with privacy.epsilon",
    )


class Privacy(Part):
    """Differential privacy of everything that training sends; epsilon null turns it off, visibly.

    `dp-sgd`: each site noises its own steps, and trusts nobody. `shared-noise`: every step is one sum under masks, of
    which each site adds its share of the noise. `site-level`: a site's whole update is clipped and noised.
    """

    unit: Literal["patient", "site"] = Field(
        default="patient", description="whose data may change without being noticed; site: all of a site's at once"
    )
    epsilon: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None
    delta: float = Field(default=1e-5, gt=0, lt=1)
    mechanism: Literal["dp-sgd", "shared-noise", "site-level"] = "dp-sgd"
    clip_norm: Positive = Field(default=1.0, description="L2 norm to which a patient's gradient is clipped")
    honest_fraction: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="shared-noise: of `maximum_sites` hospitals, at most the rest (rounded down) collude with the hub; "
        "the noise counts on the fewest survivors less these",
    )
    update_norm: Positive = Field(default=1.0, description="site-level: L2 norm to which a site's first update is cut")
    update_quantile: Fraction = Field(
        default=0.5, description="site-level: the fraction of updates that the norm shall leave uncut"
    )
    update_norm_rate: float = Field(
        default=0.2, ge=0, le=1, description="site-level: how fast the norm follows the quantile; 0 keeps it"
    )
    spare_tasks: int = Field(default=0, ge=0, le=1000, description="tasks beyond `rounds` that noise is calibrated for")
    allow_large_delta: ShortText | None = Field(
        default=None, description="the reason why delta may exceed 1/(10 x training patients)"
    )


class Transport(Part):
    """How updates travel."""

    compression: Literal["none", "zstandard"] = Field(default="zstandard", description="lossless; undone at the hub")


class SecureAggregation(Part):
    """How the sum of the updates is made without the hub seeing any of them; `none`: it sees each.

    Integers travel: each value of the weighted update is limited to +-value_range and rounded, by chance and without
    bias, to one of the levels that `maximum_sites` leave room for (`protocol/secure_aggregation/vector.py`).
    """

    method: Literal["none", "masking", "homomorphic"] = "none"
    maximum_sites: int | None = Field(
        default=None, ge=4, le=4096, description="most sites in a round; fixes the width of the sum; required"
    )
    maximum_weight: int | None = Field(
        default=None,
        ge=1,
        lt=2**24,
        description="a site with more training patients weighs as if it had so many; required with weighting: patients",
    )
    value_range: Positive = Field(
        default=0.5, description="a value of an update, weighted by at most 1, is cut to plus or minus this"
    )
    value_bits: int | None = Field(
        default=None, ge=2, le=20, description="bits of a rounded value; null: as many as keep the sum in 16 bits"
    )
    phase_seconds: Positive = Field(
        default=600.0, description="a site that is silent for so long, in a phase beside training, is taken as lost"
    )


class Evaluation(Part):
    """How versions are judged on held-out patients."""

    splits: list[HeldOutSplit] = Field(default=["validation", "test"], min_length=1)
    every: int = Field(default=1, ge=1, description="evaluate every n-th version, and always the last")
    at_most: int = Field(
        default=1000, ge=1, le=100_000, description="evaluations a site may be asked for in this study"
    )
    noise_epsilon: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None,
        description="epsilon of the held-out histograms' noise, each evaluation; null: un-noised, and called so",
    )
    final_version: Literal["last", "best-validation"] = "last"
