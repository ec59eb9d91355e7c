"""Metrics of several classes or findings: for each the AUC of it against all others, and their mean, the macro AUC.

Each class has a pair of score histograms of its own (`metrics.py`): who has it, and who has not. Who is not known for a
finding is in neither.

The macro AUC's interval is the mean of the classes' lower ends and the mean of their upper ends. The same patients make
all classes' AUCs, so that these go up and down together to an unknown degree; the mean of the ends is right where they
move as one, and too wide otherwise: the deviation of a mean is at most the mean of the deviations.
Source: Hand and Till 2001 (AUC of several classes); Provost and Domingos 2000 (one against all others).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.metrics import MASKED_BINS, ScoreHistograms, summarise

VALUES_OF_A_SPLIT = 1 << 16
"""Bins of all classes together on one side: what a message has room for, and a sum under masks."""


def class_bins(classes: int) -> int:
    """Return how many bins each class's histograms have: fewer where there are many classes, a power of two."""
    return min(MASKED_BINS, VALUES_OF_A_SPLIT >> (classes - 1).bit_length())


@dataclass(frozen=True)
class MacroAuc:
    """The mean AUC of the classes that have one, with its interval of 95 %, and how many these are."""

    auc: float | None
    low: float | None
    high: float | None
    classes: int


def macro_auc(histograms: Sequence[ScoreHistograms]) -> MacroAuc:
    """Return the mean of the classes' AUCs, over those that have held-out patients with and without the class."""
    found = [summarise(own) for own in histograms]
    ends = [
        (own.auc, own.auc_low, own.auc_high)
        for own in found
        if own.auc is not None and own.auc_low is not None and own.auc_high is not None
    ]
    if not ends:
        return MacroAuc(None, None, None, 0)
    auc, low, high = (sum(values) / len(ends) for values in zip(*ends, strict=True))
    return MacroAuc(auc, low, high, len(ends))
