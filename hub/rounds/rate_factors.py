"""The factor of each hospital's learning rate, made of its data's quality and of its updates. Pure.

    quality   the cube root of evenness x readable x single, with p the fraction of positive training patients:
              evenness 4 p (1 - p), readable and single the fractions of patients without an unreadable or repeated
              image. A noised count counts only as far as its noise cannot explain it, which is two standard
              deviations; nothing falls below a tenth.
    updates   after each version that the site's update went into: sqrt(its last value) x 2^(agreement + trend), each of
              the cosines of `hub/aggregation/agreement.py` less its weighted mean over those in the version that have
              it. So what all have in common moves nobody, and a site that was not asked, or is slow, keeps its value
              and loses nothing to the others. The root forgets: a site whose sum is d above the mean, version after
              version, comes to 4^d.
    both      the square root of their product

The factors are these values times one number, cut to the study's bounds; the number is the one for which the mean of
the factors, each site weighing what its updates weigh, is 1. So the schedule and the hub's own step say how fast the
federation learns, and the factors how the hospitals share it. All that goes in was noised before it came here.

By hand, with bounds 0.5 and 2 and equal weights: two sites agree at 0.5, one at -0.5, with no trend yet. The mean is
1/6; their values are 2^(1/3) = 1.2599 twice and 2^(-2/3) = 0.6300; 3 / (1.2599 + 1.2599 + 0.6300) = 0.9524; factors
1.2, 1.2 and 0.6. Were the third's value 0.3 and theirs 1, it would be cut to 0.5, and the others had 1.25 each.

Source: the trend as in Baydin et al. 2018, arXiv:1703.04782, in its multiplicative form with the cosine in place of the
product; the rule as a whole is ours.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hub.aggregation.agreement import Course
from protocol.site_rates import FIGURES, QualityFigures
from protocol.study import StudySpec

RATE, QUALITY, UPDATES, AGREEMENT, TREND = "rate.", "rate_quality.", "rate_updates.", "agreement.", "trend."
"""Before a site's name, in the numbers of a version's state: the factor for the rounds that follow, and its parts."""
SMALLEST_PART = 0.1
DEVIATIONS = 2.0
DECIMALS = 4
HALVINGS = 100


@dataclass(frozen=True)
class RatedSite:
    """A hospital that trains: what its updates weigh, its public figure, and its data's figures, if it gave any."""

    site: str
    weight: float
    training_patients: int
    quality: QualityFigures | None = None


def next_rates(
    study: StudySpec, sites: Sequence[RatedSite], before: Mapping[str, float], courses: Mapping[str, Course]
) -> dict[str, float]:
    """Return the numbers to keep with a version: every site's factor for the rounds that follow, and its parts.

    `before` are the numbers kept with the version before, `courses` what the updates that made this one measure.
    """
    terms, numbers, values = study.site_rates, dict[str, float](), dict[str, float]()
    ahead = ahead_of_the_mean(sites, courses)
    for rated in sites:
        parts: list[float] = []
        if terms.reads_quality:
            quality = quality_part(rated.quality, rated.training_patients)
            numbers[QUALITY + rated.site] = quality
            parts.append(quality)
        if terms.reads_updates:
            moved = updates_part(before.get(UPDATES + rated.site, 1.0), ahead.get(rated.site))
            numbers |= {UPDATES + rated.site: moved, **_named(rated.site, courses.get(rated.site))}
            parts.append(moved)
        values[rated.site] = math.prod(parts) if len(parts) == 1 else math.sqrt(math.prod(parts))
    weights = {rated.site: rated.weight for rated in sites}
    factors = balanced(values, weights, terms.least, terms.most)
    return numbers | {RATE + site: factor for site, factor in factors.items()}


def rate_of(study: StudySpec, round_number: int, site: str, numbers: Mapping[str, float]) -> float | None:
    """Return the factor that a round's task names for a site; None where the study has none in this round."""
    terms = study.site_rates
    if terms.adapt == "none" or round_number < terms.from_round:
        return None
    return numbers.get(RATE + site, 1.0)


def parts_of(site: str, numbers: Mapping[str, float]) -> dict[str, float] | None:
    """Return what stands behind a site's factor in a version's numbers, by name; None where nothing does."""
    names = {"quality": QUALITY, "updates": UPDATES, "agreement": AGREEMENT, "trend": TREND}
    found = {name: numbers[key + site] for name, key in names.items() if key + site in numbers}
    return found or None


def quality_part(figures: QualityFigures | None, training_patients: int) -> float:
    """Return what a hospital's figures are worth, in [0.1, 1]; 1 where there are none.

    >>> quality_part(QualityFigures(positive=50, unreadable=20, repeated=0, noise_epsilon=1000), 100)  # 0.8^(1/3)
    0.9284
    """
    if figures is None or training_patients < 1:
        return 1.0
    reach = DEVIATIONS * math.sqrt(2.0) * FIGURES / figures.noise_epsilon
    half = training_patients / 2.0
    uneven = max(0.0, abs(figures.positive - half) - reach) / half
    flaws = [max(0.0, count - reach) / training_patients for count in (figures.unreadable, figures.repeated)]
    parts = [1.0 - uneven * uneven, *(1.0 - flaw for flaw in flaws)]  # 4 p (1 - p) = 1 - (2 p - 1)^2
    return max(SMALLEST_PART, round(math.pow(max(0.0, math.prod(parts)), 1.0 / 3.0), DECIMALS))


def updates_part(before: float, ahead: float | None) -> float:
    """Return what a hospital's updates are worth after one more; without one it stays.

    >>> updates_part(4.0, ahead=0.5)  # 2 x 2^0.5
    2.8284
    """
    return before if ahead is None else round(math.sqrt(before) * math.pow(2.0, ahead), DECIMALS)


def ahead_of_the_mean(sites: Sequence[RatedSite], courses: Mapping[str, Course]) -> dict[str, float]:
    """Return by how much the cosines of each site with a course lie above those of the others, added.

    Guarantee: a cosine that a site does not have counts as the mean of those that do, and one that all share as 0; the
        weighted mean over the sites is 0.
    """
    counted = [rated for rated in sites if rated.site in courses]
    found = {rated.site: 0.0 for rated in counted}
    for name in ("agreement", "trend"):
        own = {rated.site: getattr(courses[rated.site], name) for rated in counted}
        known = [rated for rated in counted if own[rated.site] is not None]
        total = math.fsum(rated.weight for rated in known)
        if not total > 0:
            continue
        mean = math.fsum(rated.weight * own[rated.site] for rated in known) / total
        for rated in known:
            found[rated.site] += own[rated.site] - mean
    return found


def balanced(values: Mapping[str, float], weights: Mapping[str, float], least: float, most: float) -> dict[str, float]:
    """Return factors in [least, most], in the ratios of the values where they are not cut, whose weighted mean is 1.

    Guarantee: to four decimals, and so for the mean; least <= 1 <= most, so that there are such factors.
    """
    total = math.fsum(weights[site] for site in values)
    if not total > 0:
        return dict.fromkeys(values, 1.0)

    def cut(times: float) -> dict[str, float]:
        return {site: min(most, max(least, times * value)) for site, value in values.items()}

    low, high = least / max(values.values()), most / min(values.values())
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        mean = math.fsum(weights[site] * factor for site, factor in cut(middle).items()) / total
        low, high = (middle, high) if mean < 1.0 else (low, middle)
    return {site: min(most, max(least, round(factor, DECIMALS))) for site, factor in cut(high).items()}


def _named(site: str, course: Course | None) -> dict[str, float]:
    measured = {} if course is None else {AGREEMENT: course.agreement, TREND: course.trend}
    return {name + site: round(value, DECIMALS) for name, value in measured.items() if value is not None}
