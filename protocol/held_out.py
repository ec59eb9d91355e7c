"""How held-out counts travel: in which field of a report, how many histograms a split has, and what noises each.

One field of `EvaluationReport` for each way of counting; a new one gets a line in `COUNTED_IN`, its check in
`held_out_checks.py`, its disclosure, and its pooling at the hub (`hub/rounds/scoring.py`).
"""

from collections.abc import Mapping
from typing import Literal

from protocol.outcome import Outcome
from protocol.study import StudySpec

CountsField = Literal["histograms", "classes", "pairs", "values"]
COUNTED_IN: Mapping[Outcome, CountsField] = {
    "binary": "histograms",
    "multi-class": "classes",
    "multi-label": "classes",
    "survival": "pairs",
    "segmentation": "values",
    "regression": "values",
}


def counts_field(study: StudySpec) -> CountsField:
    """Return the field of a report that a study's held-out counts go into."""
    return COUNTED_IN[study.outcome]


def histograms_of_split(study: StudySpec) -> int:
    """Return in how many of a split's histograms a patient is: a pair for each class, or one of figures for each."""
    if study.outcome == "segmentation":
        return len(study.label.classes) - 1  # all but the background
    return len(study.label.classes) if counts_field(study) == "classes" else 1


def epsilon_of_each(study: StudySpec) -> float | None:
    """Return the epsilon of the noise on each histogram (pair); None without noise.

    A patient is in one bin of each, so that together they are as private as `evaluation.noise_epsilon` says.
    """
    noise = study.evaluation.noise_epsilon
    return None if noise is None else noise / histograms_of_split(study)
