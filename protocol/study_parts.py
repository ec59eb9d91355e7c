"""The parts of a study specification: which data, which network, how it is trained, averaged, protected and judged.

Each is frozen, closed against misspelt keys, and documents its fields: the launch form, the JSON Schema and
`docs/study_specification.md` are made from these descriptions. `study.py` puts them together.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from protocol.digest import Digest

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
MOST_LOCAL_STEPS = 100_000

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
ShortText = Annotated[str, StringConstraints(max_length=200)]
TensorPattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*?-]{1,200}$")]
CodecText = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.:-]{1,40}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Split = Literal["train", "validation", "test"]
HeldOutSplit = Literal["validation", "test"]


class Part(BaseModel):
    """A part of the specification: frozen, and closed against misspelt keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Splits(Part):
    """Fractions of patients held out, where labels.csv names no split. Drawn by a keyed hash of the patient."""

    validation: Fraction = 0.1
    test: Fraction = 0.2


class Network(Part):
    """A permitted network (`site_node/training/networks.py`) and its size."""

    name: str = Field(max_length=64, description="densenet, resnet, ... : see `wardround site networks`")
    normalisation: Literal["group", "instance", "layer", "batch", "none"] = "group"
    arguments: dict[str, int | float | bool | str | list[int]] = Field(
        default={}, description="size arguments of the network; unknown ones are refused when the network is built"
    )


class Training(Part):
    """What a site does in one round."""

    local_steps: int | None = Field(
        default=10,
        ge=1,
        le=MOST_LOCAL_STEPS,
        description="optimiser steps a round; null where local_epochs counts them",
    )
    local_epochs: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="in place of local_steps: so many times 1 / sampling_rate steps, rounded",
    )
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
    schedule: Literal["constant", "cosine", "linear", "step"] = Field(
        default="constant", description="learning rate over the rounds"
    )
    warm_up_rounds: int = Field(
        default=0, ge=0, le=10_000, description="rounds in which the learning rate first rises evenly to its full value"
    )
    step_rounds: int = Field(default=10, ge=1, le=100_000, description="schedule step: rounds between two falls")
    step_factor: float = Field(default=0.1, gt=0, lt=1, description="schedule step: what is left of it at each fall")
    proximal: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        allow_inf_nan=False,
        description="FedProx: how strongly each step is pulled back to the round's version; 0: not",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="bfloat16: networks multiply in 8 bits while they train, faster and smaller on GPUs of today; "
        "clipping, sums, noise and steps stay float32",
    )

    @model_validator(mode="before")
    @classmethod
    def _epochs_take_the_place_of_steps(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("local_epochs") is not None and "local_steps" not in data:
            return {**data, "local_steps": None}
        return data


class Personal(Part):
    """What a site keeps of the model for itself: its own version, fitted to its own patients."""

    keep: list[TensorPattern] = Field(
        default=[],
        max_length=100,
        description="FedBN: tensors that stay at each site, by name or pattern (head.*); "
        "'normalisation': those of all normalisation layers",
    )
    ditto: Positive | None = Field(
        default=None,
        le=1000,
        description="Ditto: a personal model is trained beside, with this pull towards the study's; null: none",
    )
    judged: Literal["own", "global"] = Field(
        default="own", description="Ditto: which model a site evaluates, its personal one or the study's version"
    )


class Strategy(Part):
    """How the hub makes the next version: `join` makes one update of all, `name` says how it moves the weights."""

    name: Literal["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "fedexp", "scaffold"] = Field(
        default="fedavg",
        description="the hub's step: plain, with momentum, with a rate for each weight (fedadam, fedyogi, fedadagrad), "
        "as long as the updates agree (fedexp), or plain with control variates at hub and sites (scaffold)",
    )
    join: Literal["mean", "median", "trimmed-mean", "krum", "multi-krum", "geometric-median"] = Field(
        default="mean", description="how the updates become one; all but the mean hold against a few wild ones"
    )
    weighting: Literal["patients", "equal", "noise"] = Field(
        default="patients",
        description="what an update counts: the site's training patients, 1, or what its noise leaves of it",
    )
    learning_rate: Positive = Field(default=1.0, description="the hub's step along the joined update")
    momentum: float = Field(
        default=0.9, ge=0, lt=1, description="fedavgm, fedadam, fedyogi, fedadagrad: what stays of the last step"
    )
    second_moment: float = Field(
        default=0.99, ge=0, lt=1, description="fedadam, fedyogi: what stays of the mean of squared updates"
    )
    tau: Positive = Field(
        default=1e-3, description="fedadam, fedyogi, fedadagrad: the size of updates below which steps get smaller"
    )
    wild_sites: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="trimmed-mean, krum, multi-krum: so many sites may send anything",
    )
    norm_limit: Positive | None = Field(
        default=None, description="an update longer than so many times the round's median length is shortened to it"
    )
    averaging: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="versions are an exponential mean of the weights so far, with this decay; 0: the weights (fedexp: "
        "the mean of the last two)",
    )

    @property
    def releases_mean(self) -> bool:
        """Tell whether a version is a mean of several rounds' weights, and not what sites train from."""
        return self.averaging > 0 or self.name == "fedexp"


class Participants(Part):
    """Who must be there."""

    minimum_sites: int = Field(
        default=2,
        ge=1,
        le=10_000,
        description="approvals needed before the study may start; it goes on with as many of them as `quorum` asks, "
        "or, under masks and encryption, with all of them",
    )
    quorum: float = Field(
        default=0.5, gt=0, le=1, description="fraction of the asked sites that closes a round at its deadline"
    )
    deadline_seconds: Positive = Field(default=3600.0, description="a round that has its quorum closes after this time")
    deadline: Literal["fixed", "learned"] = Field(
        default="fixed",
        description="learned: a round's deadline is when its quorum usually has answered, by the sites' own measured "
        "times, and never later than `deadline_seconds`",
    )
    late: Literal["refuse", "fold"] = Field(
        default="refuse",
        description="an update that comes after its round closed is refused, or counted once in the next round, "
        "weighted down",
    )
    sampled: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="fraction of the sites that a round asks, by a public draw; never fewer than `minimum_sites`",
    )
    training_patients: int | None = Field(
        default=None,
        ge=1,
        description="training patients expected in the whole federation; required with privacy.epsilon",
    )


class Pace(Part):
    """When a version is made: of the updates of one round, or of whatever has come.

    `buffered`: each site trains at its own pace, on the newest version when it is ready; as soon as `buffer` updates
    wait, they make a version. An update that was made on a version that is n versions old counts
    (1 + n)^(-staleness_exponent) times.
    """

    mode: Literal["synchronous", "buffered"] = "synchronous"
    buffer: int | None = Field(
        default=None, ge=1, le=10_000, description="buffered: updates that make a version; required there"
    )
    maximum_staleness: int = Field(
        default=10, ge=0, le=1000, description="buffered: an update of a version that is older is not waited for"
    )
    staleness_exponent: float = Field(
        default=0.5, ge=0, le=10, description="how fast the weight of an old update falls; 0: it does not"
    )


class Start(Part):
    """What version 0 is: built from the seed, or the weights of an earlier version of a study with the same network."""

    weights: Digest | None = Field(
        default=None, description="digest of the weights to start from, word for word; null: built from the seed"
    )
    study: Name | None = Field(default=None, description="the study at the same hub that the weights come from")
    version: int | None = Field(default=None, ge=0, description="the number of that study's version")


class Transport(Part):
    """How updates and versions travel: lists of steps, done in order and undone in reverse by who receives.

    Steps: top-k:FRACTION or random-k:FRACTION (of the values, which travel), then quantise:BITS (2 to 16) or half
    (half:bfloat16), then zstandard. At most one of each kind, in this order.
    """

    upload: list[CodecText] = Field(
        default=["zstandard"], max_length=3, description="what a site does to its update; an empty list: nothing"
    )
    error_feedback: bool | None = Field(
        default=None,
        description="what an upload's steps lose stays at the site and is added to its next update; null: where top-k "
        "is a step",
    )
    download: list[CodecText] = Field(
        default=[],
        max_length=3,
        description="what the hub does to the difference between two versions, for sites that hold the earlier one; an "
        "empty list: each version travels whole",
    )


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
    sum_under_masks: bool | None = Field(
        default=None,
        description="the hub learns the sum of the hospitals' held-out counts alone, of at least four; null: where "
        "`participants.minimum_sites` is four or more and nothing stands against it; always so with secure aggregation",
    )
    final_version: Literal["last", "best-validation"] = "last"
    patience: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="the study ends, with its best version, after so many evaluations without a better pooled "
        "validation AUC (or concordance, Dice, error); null: after its rounds",
    )
