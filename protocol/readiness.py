"""What a hospital tells of its readiness for a study before it answers: its machine, its settings, its own accounting.

Nothing here depends on a patient of the hospital. Labels are told as far as site.yaml and a table's first line go;
whether the words in it are the study's is not looked at. Disk and memory are judged whole, not by what is free: that
follows from the images that lie there. A round is timed on stand-ins, images of noise and as many patients as the study
itself expects, so that a hospital of few patients and one of many say the same on the same machine. How many patients
there are, and whether they fit, no word here tells (docs/decisions/0045).
"""

import math
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import Field

from protocol.digest import Digest
from protocol.message import Count, Message
from protocol.study_parts import Name

if TYPE_CHECKING:
    from protocol.study import StudySpec

MOST_STAND_INS = 100_000
HOURS_A_WEEK = 168

ReportNumber = Literal[1, 2, 3]
MOST_REPORTS: int = max(get_args(ReportNumber))
"""So many may a site tell of one study: one more where a machine was mended, and no series of measurements."""

LabelsState = Literal["found", "no-column", "missing", "in-reports", "not-looked-for", "not-told"]
NamesState = Literal["every", "some", "none", "not-needed", "not-told"]
DecodersState = Literal["all", "some-missing", "unseen"]
DeviceState = Literal["cpu", "gpu", "unseen"]
Sufficient = Literal["suffices", "too-small", "unseen"]
Step = Literal[1, 2, 5, 10, 20, 30, 60, 120, 240, 480, 1440]
Minutes = Step | Literal["longer", "not-measured"]


class ReadinessReport(Message):
    """Site to hub, before it approves, where a person there or its policy lets it: how ready the place is for a study.

    `policy` says whether the hospital's policy has an objection to the study's terms; not what its patients allow.
    `epsilon` is what training patients would spend over the whole study by the hospital's own accounting.
    `labels`: the table that site.yaml names has the study's label column (`found`), lacks it, or is missing; or the
    column is read from structured reports. `class_names`: how many of the study's classes site.yaml names as what a
    local word means. Both are settings.
    `minutes_a_round` is at most so many, on `device`, with `stand_ins` training patients (`expected_patients`).
    """

    schema_: Literal["wardround.readiness/1"] = Field(default="wardround.readiness/1", alias="schema")
    site: Name
    study_digest: Digest
    number: ReportNumber
    policy: Literal["allows", "objects"]
    tasks: Literal["taken", "draining"]
    train_hours: Annotated[int, Field(ge=1, le=HOURS_A_WEEK, description="hours of the week in which training begins")]
    epsilon: float | None = Field(ge=0, allow_inf_nan=False)
    noise_multiplier: float | None = Field(gt=0, allow_inf_nan=False)
    labels: LabelsState
    class_names: NamesState
    decoders: DecodersState
    device: DeviceState
    disk: Sufficient
    memory: Sufficient
    minutes_a_round: Minutes
    stand_ins: Count


def expected_patients(study: "StudySpec") -> int:
    """Return how many training patients a hospital is expected to have, by the study's own text alone. Pure.

    The whole federation's, over the fewest hospitals that it starts with; at least the study's minimum.
    """
    terms = study.participants
    share = math.ceil((terms.training_patients or 0) / terms.minimum_sites)
    return min(MOST_STAND_INS, max(1, share, study.cohort.minimum_patients))


def rounded_up(minutes: float) -> Minutes:
    """Return the next step of the fixed ladder above a time. Pure.

    >>> rounded_up(0.2), rounded_up(20.0), rounded_up(20.1), rounded_up(5000)
    (1, 20, 30, 'longer')
    """
    steps: tuple[Step, ...] = get_args(Step)
    return next((step for step in steps if minutes <= step), "longer")
