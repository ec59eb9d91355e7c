"""A learning rate for each hospital: the part of a study that asks for it, and the figures of a hospital's data.

The round's learning rate (`schedule.py`) is multiplied by a factor for each site, within bounds that the study states
and whose mean over the sites is one. The hub makes the factor (`hub/rounds/rate_factors.py`) of noised releases alone:
quality figures that leave once, with the approval, and the updates as they arrive.

A quality figure counts the training patients of whom something holds. A patient moves each of the three counts by at
most one, whatever the number of their images; so three counts, each with two-sided geometric noise of scale 3/epsilon,
are three uses of the discrete Laplace mechanism of epsilon/3 and together cost epsilon.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from protocol.message import Count
from protocol.privacy_events import PrivacyEvent
from protocol.study_parts import Part

FIGURES = 3
"""How many counts a patient can move, each by one."""


class SiteRates(Part):
    """Whether each hospital learns at a rate of its own: the round's, times a factor that the hub finds.

    `quality`: hospitals with uneven labels, unreadable or repeated images take smaller steps. `updates`: so do those
    whose updates point away from the others', or back where they came from.
    """

    adapt: Literal["none", "quality", "updates", "both"] = Field(
        default="none", description="what the factor follows: the data's quality, the updates, or both"
    )
    least: float = Field(default=0.5, ge=0.01, le=1, description="the smallest factor of a hospital's learning rate")
    most: float = Field(default=2.0, ge=1, le=100, description="the largest factor; the mean over the hospitals is 1")
    from_round: int = Field(default=2, ge=1, le=100_000, description="the first round with factors other than 1")
    quality_epsilon: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = Field(
        default=None,
        description="epsilon of the quality figures, which leave once; required with them, part of privacy.epsilon",
    )

    @property
    def reads_quality(self) -> bool:
        """Tell whether each site releases figures of its data's quality."""
        return self.adapt in ("quality", "both")

    @property
    def reads_updates(self) -> bool:
        """Tell whether the hub compares single updates."""
        return self.adapt in ("updates", "both")

    def admits(self, round_number: int, factor: float | None) -> bool:
        """Tell whether a task of this round may name this factor: within the bounds, and none where none is due."""
        if self.adapt == "none" or round_number < self.from_round:
            return factor is None
        return factor is not None and self.least <= factor <= self.most


class QualityFigures(BaseModel):
    """How many training patients are positive, have a damaged or missing image (or row), have one twice.

    Noised always, also where training is not, and cut to the range that the public figure leaves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    positive: Count
    unreadable: Count
    repeated: Count
    noise_epsilon: float = Field(gt=0, le=1000)

    def fits(self, terms: SiteRates, training_patients: int) -> bool:
        """Tell whether these are figures that a study asks for, of a site with so many training patients."""
        counts = (self.positive, self.unreadable, self.repeated)
        return terms.reads_quality and self.noise_epsilon == terms.quality_epsilon and max(counts) <= training_patients


def released(
    exact: tuple[int, int, int], training_patients: int, epsilon: float, noise_of: Callable[[int, float], Any]
) -> QualityFigures:
    """Return figures as they may leave: `noise_of(count, scale)` draws two-sided geometric noise.

    Guarantee: epsilon-differentially private where a patient moves each count by at most one; cutting to
        0 ... training_patients is post-processing, for that number is public.
    """
    noise = [int(drawn) for drawn in noise_of(FIGURES, FIGURES / epsilon)]
    cut = [min(max(0, count + more), training_patients) for count, more in zip(exact, noise, strict=True)]
    return QualityFigures(positive=cut[0], unreadable=cut[1], repeated=cut[2], noise_epsilon=epsilon)


def quality_events(terms: SiteRates) -> list[PrivacyEvent]:
    """Return the events of a study's quality figures, released once; none where there are none."""
    if not terms.reads_quality or terms.quality_epsilon is None:
        return []
    scale = FIGURES / terms.quality_epsilon
    return [PrivacyEvent(mechanism="discrete-laplace", noise_multiplier=scale, count=FIGURES)]
