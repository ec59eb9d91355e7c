"""Privacy of whole sites: a site cuts its update to one length and noises it. The shared arithmetic. Pure.

The neighbouring relation here: all data of one site replaced by any other data, with the site still taking part. So an
update may move across the whole ball, by twice its length, and each patient of the site is covered by the same epsilon:
the ledger charges the patients with it. (Andrew et al. count a site that takes part or not, whose update moves by its
length once; such an epsilon would not cover the patients of a site that stays.)

The length follows a quantile of the sites' own lengths, C <- C exp(-rate x (b - quantile)), with b the fraction of
updates that needed no cutting, from one noised bit of each site, and held within [0, 1]. Both noises together are one
Gaussian mechanism: 1/z^2 = 1/z_update^2 + 1/z_bit^2, of which a tenth is the bit's.

The hub is not trusted, so each site adds the whole noise itself. Per value of the mean over n sites its standard
deviation is 2 C z_update / sqrt(n): with 20 sites, z = 5 and C = 0.5 about 1.2 in every weight, with 2000 a tenth of
that. This mechanism is for federations of very many sites, or large epsilons.

Source: Andrew, Thakkar, McMahan and Ramaswamy 2021, arXiv:1905.03871, Algorithm 1 and Theorem 1.

    >>> round(next_update_norm(1.0, [1.0, 1.0, 0.0, 1.0], quantile=0.5, rate=0.2), 4)  # three of four uncut: shorter
    0.9512
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.errors import AccountingError
from protocol.privacy_terms import Privacy
from protocol.study import StudySpec

BIT_SHARE = 0.1
"""The bit's part of 1/z^2."""
ROUNDING = 1e-9
LARGEST_DEVIATION = 2.0
"""Of an update's noise in each value; weights are of order one or smaller."""


@dataclass(frozen=True)
class SiteNoise:
    """The two noises of a release, as standard deviations over sensitivities; `bit` None: no bit is released."""

    update: float
    bit: float | None


def is_adaptive(privacy: Privacy) -> bool:
    """Tell whether the length follows a quantile, for which each site releases a noised bit."""
    return privacy.mechanism == "site-level" and privacy.update_norm_rate > 0


def site_noise(privacy: Privacy, noise_multiplier: float) -> SiteNoise:
    """Split a study's noise between a site's update and its bit.

    Guarantee: both together are a Gaussian mechanism with this noise multiplier.
    """
    if not is_adaptive(privacy):
        return SiteNoise(noise_multiplier, None)
    return SiteNoise(noise_multiplier / math.sqrt(1.0 - BIT_SHARE), noise_multiplier / math.sqrt(BIT_SHARE))


def bit_deviation(privacy: Privacy, noise_multiplier: float | None) -> float | None:
    """Return the standard deviation of the noise on a site's bit, or None without noise or bit."""
    return None if noise_multiplier is None else site_noise(privacy, noise_multiplier).bit


def is_possible_bit(bit: float, deviation: float | None) -> bool:
    """Tell whether a site that kept to the study can have said this bit: 0 or 1 and 40 standard deviations at most."""
    return deviation is not None and -40.0 * deviation <= bit <= 1.0 + 40.0 * deviation


def update_deviation(privacy: Privacy, noise_multiplier: float, update_norm: float) -> float:
    """Return the standard deviation of the noise in each value of one site's update, cut to this length."""
    return 2.0 * update_norm * site_noise(privacy, noise_multiplier).update


def check_site_noise(privacy: Privacy, noise_multiplier: float) -> None:
    """Check that an update's noise is of a size that the gate lets out.

    Raises: AccountingError if it would drown every weight; the numbers are in the message.
    """
    deviation = update_deviation(privacy, noise_multiplier, privacy.update_norm)
    if deviation > LARGEST_DEVIATION:
        raise AccountingError(
            f"Noise of deviation {deviation:.3g} in every value of a site's update would leave nothing of it (the mean "
            f"over n sites has 1/sqrt(n) of that; at most {LARGEST_DEVIATION:g} is taken). Raise privacy.epsilon, lower"
            " privacy.update_norm, or take fewer rounds."
        )


def next_update_norm(norm: float, bits: Sequence[float], quantile: float, rate: float) -> float:
    """Return the length for the next round; without a bit it stays.

    Guarantee: at most exp(rate x quantile) times longer and exp(rate x (1 - quantile)) times shorter, whatever the
        noise of the bits was.
    """
    if not bits:
        return norm
    uncut = min(1.0, max(0.0, math.fsum(bits) / len(bits)))
    return norm * math.exp(-rate * (uncut - quantile))


def is_possible_norm(study: StudySpec, round_number: int, norm: float | None) -> bool:
    """Tell whether a hub that kept to the study can have come to this length by a round: what a site's gate checks.

    The noise grows with the length, so that no length costs privacy; another one would cost accuracy.
    """
    privacy = study.privacy
    if privacy.mechanism != "site-level":
        return norm is None
    if norm is None or not norm > 0 or not math.isfinite(norm):
        return False
    moved, steps = math.log(norm / privacy.update_norm), max(0, round_number - 1)
    longest = steps * privacy.update_norm_rate * privacy.update_quantile
    shortest = -steps * privacy.update_norm_rate * (1.0 - privacy.update_quantile)
    return shortest - ROUNDING <= moved <= longest + ROUNDING
