"""Concordance that merges: pairs of patients of one hospital, counted; counts add, no time and no risk leaves.

Of two patients of whom it is known who had the event first, the pair is concordant if the one of the earlier event was
given the larger risk. The pooled index is stratified: pairs within hospitals, summed over hospitals. Pairs across
hospitals would need the patients' risks in one place.
One patient is in as many pairs as there are others, so that these counts are not noised, and are called so.
Source: Harrell et al. 1982; ties in time and risk as in lifelines: at the same time an event precedes a censored
observation, two events are not compared, and equal risks count one half.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from protocol.errors import MetricError
from protocol.message import Count


class PairCounts(BaseModel):
    """How many patients a hospital holds out, with how many events, and how their comparable pairs are ordered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patients: Count = 0
    events: Count = 0
    comparable: Count = 0
    concordant: Count = 0
    tied: Count = 0

    @model_validator(mode="after")
    def _are_counts_of_pairs(self) -> "PairCounts":
        pairs = self.patients * (self.patients - 1) // 2
        most = min(pairs, self.events * max(0, self.patients - 1))
        if self.events > self.patients or not self.concordant + self.tied <= self.comparable <= most:
            raise ValueError("the counts are not of pairs of so many patients")
        return self

    @classmethod
    def of(cls, risks: NDArray[np.float64], times: NDArray[np.float64], events: NDArray[np.bool_]) -> "PairCounts":
        """Count the pairs of some patients.

        Shapes: all (patient,); a larger risk says an earlier event.
        Raises: MetricError if the shapes differ or a value is not finite.
        """
        if not (risks.shape == times.shape == events.shape and risks.ndim == 1):
            raise MetricError("Expected a risk, a time and an event for each patient.")
        if not bool(np.isfinite(risks).all() and np.isfinite(times).all()):
            raise MetricError("Expected risks and times that are finite.")
        comparable = concordant = tied = 0
        later: list[float] = []  # the risks of all who outlast the time that is looked at, in order
        order = np.argsort(-times, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(times[order])) + 1):
            for risk in risks[group[~events[group]]]:
                insort(later, float(risk))
            own = [float(risk) for risk in risks[group[events[group]]]]
            for risk in own:
                below, not_above = bisect_left(later, risk), bisect_right(later, risk)
                comparable, concordant, tied = comparable + len(later), concordant + below, tied + not_above - below
            for risk in own:
                insort(later, risk)
        return cls(
            patients=len(risks), events=int(events.sum()), comparable=comparable, concordant=concordant, tied=tied
        )


@dataclass(frozen=True)
class SurvivalMetrics:
    """What pair counts tell; no concordance without a comparable pair."""

    patients: int
    events: int
    concordance: float | None


def merge_pairs(counts: Sequence[PairCounts]) -> PairCounts:
    """Add the counts of several hospitals or splits.

    Raises: MetricError if there are none.
    """
    if not counts:
        raise MetricError("At least one hospital's counts of pairs are needed.")
    # hospitals' pairs lie within hospitals, so that the sum is below the pairs of all their patients
    return PairCounts(**{name: sum(getattr(count, name) for count in counts) for name in PairCounts.model_fields})


def summarise_pairs(counts: PairCounts) -> SurvivalMetrics:
    """Return the concordance index, tied risks counting one half."""
    ordered = counts.concordant + counts.tied / 2
    return SurvivalMetrics(
        patients=counts.patients,
        events=counts.events,
        concordance=ordered / counts.comparable if counts.comparable else None,
    )
