"""What a study with shared noise fixes beforehand: the grid, and each site's share of the noise. Pure.

Every step is one sum under masks. A site adds to its clipped, rounded sum a share of Skellam noise, so large that the
shares of the honest sites alone make the noise that was accounted, even if only the fewest survivors are left; what
others add comes on top.

    survivors   at least floor(2n/3) + 1 of n = participants.minimum_sites, whatever the roster of a round is
    colluding   at most (1 - privacy.honest_fraction) x secure_aggregation.maximum_sites, rounded down
    sharing     survivors - colluding: the hub chooses who survives, and would keep everybody who is with it
    share       variance (noise multiplier x clip steps)^2 / sharing

A list of fewer survivors is signed and opened by no site, so that the noise cannot be thinned out by leaving sites out.

The grid is as fine as the ring of 32 bits allows: one half of a value's bound is for the sum of the site's patients,
the other for its noise. Before the noise a value is cut to its half, which moves no two sums further apart, so that no
patient can make a site's vector leave the bound.
"""

import math
from dataclasses import dataclass

from protocol.errors import AccountingError
from protocol.secure_aggregation.ring import Ring
from protocol.secure_aggregation.roster import threshold_of
from protocol.skellam import LEAST_CLIP_STEPS, LEAST_VARIANCE
from protocol.study import StudySpec

RING = Ring(32)
DRAW_TAIL = 12.0
"""Standard deviations of the number of drawn patients for which a site's sum has room."""
NOISE_TAIL = 12.0
NOISE_ROOM = 512.0
"""The noise's half of a value's bound holds at least so many clipping norms."""


@dataclass(frozen=True)
class SharedNoise:
    """The terms of one study; hub and sites derive them alike."""

    clip_norm: float
    clip_steps: int
    """Grid steps that make the clipping norm; a power of two."""
    value_bound: int
    """The largest magnitude of a site's value, noise included."""
    sharing: int
    """How many sites' shares make the noise that is accounted."""

    @property
    def grid(self) -> float:
        """Return one step of the grid, as a length in the space of gradients."""
        return self.clip_norm / self.clip_steps

    @property
    def sum_bound(self) -> int:
        """Return what a value of a site's rounded sum is cut to, before the noise."""
        return self.value_bound // 2

    def share_variance(self, noise_multiplier: float) -> float:
        """Return the variance of one site's noise, in squared grid steps.

        Guarantee: the shares of any `sharing` sites sum to Skellam noise whose standard deviation is
            `noise_multiplier` clipping norms.
        """
        return (noise_multiplier * self.clip_steps) ** 2 / self.sharing

    def check_noise(self, noise_multiplier: float) -> None:
        """Check that a share of this noise keeps to its half of a value's bound, and can be drawn exactly.

        Raises: AccountingError if a mass above 1e-30 is beyond the bound, or the share is too few grid steps wide.
        """
        variance = self.share_variance(noise_multiplier)
        if NOISE_TAIL * math.sqrt(variance) > self.value_bound - self.sum_bound:
            raise AccountingError(
                f"A noise multiplier of {noise_multiplier:.3g} does not fit the ring of the masks. "
                "Raise privacy.epsilon, take fewer rounds, or lower training.sampling_rate."
            )
        if variance < LEAST_VARIANCE:
            raise AccountingError(
                f"A site's share of the noise is too few grid steps wide for a noise multiplier of "
                f"{noise_multiplier:.3g}. Lower secure_aggregation.maximum_sites or training.sampling_rate."
            )

    def clip_norm_for(self, parameters: int) -> float:
        """Return the norm to clip a patient's gradient to, so that rounding is covered; see `skellam.py`.

        Raises: AccountingError if the grid is too coarse for so many values.
        """
        left = self.clip_norm * (1.0 - math.sqrt(parameters) / self.clip_steps)
        if left <= 0.5 * self.clip_norm:
            raise AccountingError(
                f"A grid of {self.clip_steps} steps is too coarse for a model of {parameters} values: rounding alone "
                "would take half of the clipping norm. Choose a smaller network, or lower maximum_sites."
            )
        return left


def shared_noise_of(study: StudySpec) -> SharedNoise:
    """Return a study's terms. `study_rules` has seen to the numbers that they need.

    Raises: AccountingError if no site's noise can be counted on, or no grid is fine enough for what is accounted.
    """
    sharing = sharing_sites(study)
    bound = RING.largest // (study.secure_aggregation.maximum_sites or 1)
    steps = _clip_steps(bound // 2, study.training.sampling_rate * (study.participants.training_patients or 1))
    if steps < LEAST_CLIP_STEPS:
        raise AccountingError(
            f"The ring leaves a grid of {steps} steps to the clipping norm, and {LEAST_CLIP_STEPS} are needed. Lower "
            "secure_aggregation.maximum_sites or training.sampling_rate."
        )
    return SharedNoise(
        clip_norm=study.privacy.clip_norm,
        clip_steps=steps,
        value_bound=bound,
        sharing=sharing,
    )


def fewest_survivors(study: StudySpec) -> int:
    """Return how many sites a sum in secret holds at least, of updates or of held-out counts: roster and survivors.

    The hub says who is asked and who was lost; the study that was approved says how large the crowd is at least.
    """
    return threshold_of(study.participants.minimum_sites)


def sharing_sites(study: StudySpec) -> int:
    """Return how many sites' noise is counted on: the fewest survivors, less everybody who may collude with the hub.

    Raises: AccountingError if nobody is left.
    """
    survivors = threshold_of(study.participants.minimum_sites)
    most = study.secure_aggregation.maximum_sites or study.participants.minimum_sites
    colluding = colluding_sites(most, study.privacy.honest_fraction)
    if survivors > colluding:
        return survivors - colluding
    raise AccountingError(
        f"All of the {survivors} sites that survive at least could be among the {colluding} of {most} that collude "
        "with the hub, as privacy.honest_fraction allows. Raise honest_fraction, or bring "
        "secure_aggregation.maximum_sites nearer to participants.minimum_sites."
    )


def colluding_sites(sites: int, honest_fraction: float) -> int:
    """Return how many of so many sites may collude with the hub.

    (1 - 0.9) x 10 is a hair below 1 in binary; the fraction that a person wrote is meant.
    """
    return math.floor(round((1 - honest_fraction) * sites, 9))


def _clip_steps(half_bound: int, expected_patients: float) -> int:
    # One site may hold all patients, and all gradients may be alike: more of them than this are hardly ever drawn.
    most_drawn = expected_patients + DRAW_TAIL * math.sqrt(expected_patients)
    steps = half_bound / max(most_drawn, NOISE_ROOM)
    return 1 << math.floor(math.log2(steps)) if steps >= 1 else 0
