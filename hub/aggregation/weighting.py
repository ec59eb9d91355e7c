"""What an update weighs in the mean: a site's patients, one each, or the inverse of its noise.

`patients` and `equal` come with the update: its weight is the figure that the site's approval made public, or 1.

`noise`, under local DP: each site i adds its own noise, so the update of a small hospital is mostly noise. Of its K
steps, step k adds to the mean gradient noise of standard deviation sigma C / (q n_i) in each value (noise multiplier
sigma, clipping norm C, sampling rate q, n_i patients, so that q n_i is the expected number drawn, by which the sum is
divided). With the learning rate eta and momentum mu, noise of step k moves the weights by eta (1 + mu + ... +
mu^(K-k)) times itself by the end of the round, so that the update's noise has the variance

    v_i = (eta sigma C / (q n_i))^2 x sum over j = 1..K of ((1 - mu^j) / (1 - mu))^2       (mu = 0: K times the first)

in each value; eta is that of the round in which the site was asked, also where its update is late or waited in a
buffer. Beside it, sites differ in earnest, by a variance t^2. An update is then d_i = d + u_i + e_i with
var u_i = t^2 and var e_i = v_i, and of all unbiased weighted means that with weights 1 / (t^2 + v_i) has the least
variance (Gauss and Markov). Where noise rules, weights go with n_i^2; where the sites' own differences rule, all count
alike. t^2 is estimated from the round's noised updates over all P values, which costs no privacy: with w_i = 1/v_i,
m = sum w_i d_i / sum w_i and Q = sum w_i |d_i - m|^2,

    t^2 = max(0, (Q/P - (k - 1)) / (sum w_i - sum w_i^2 / sum w_i)).

The gradient's clipping and the curvature of the loss bend the noise on its way through the steps, which is left out;
only the ratios of the weights matter.
Without DP no noise is known, and what stays is that a mean over n patients varies as 1/n: the weights are the patients.
Source: DerSimonian and Laird 1986, doi:10.1016/0197-2456(86)90046-2, equations 5 to 8 (random effects), with the
variances that are known here from Abadi et al. 2016, arXiv:1607.00133, Algorithm 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hub.aggregation.gathering import Gathered, squared_lengths
from hub.aggregation.weighted_mean import weighted_mean
from protocol.schedule import learning_rate_of
from protocol.study import StudySpec


@dataclass(frozen=True)
class AsSent:
    """The weights that came with the updates: patients or one, as the study says."""

    def weights_of(self, gathered: Gathered) -> Sequence[float]:
        """Return the updates' own weights."""
        return [update.weight for update in gathered.updates]


@dataclass(frozen=True)
class InverseNoise:
    """Weights from each site's noise and the sites' differences."""

    study: StudySpec

    def weights_of(self, gathered: Gathered) -> Sequence[float]:
        """Return 1 / (t^2 + v_i), scaled to a sum of one."""
        patients, multiplier = [update.weight for update in gathered.updates], gathered.facts.noise_multiplier
        if multiplier is None:
            return patients
        variances = [
            noise_variance(self.study, multiplier, update.weight, gathered.trained_in(update))
            for update in gathered.updates
        ]
        between = _between_sites(gathered, variances)
        weights = [1.0 / (between + variance) for variance in variances]
        total = math.fsum(weights)
        return [weight / total for weight in weights]


def noise_variance(study: StudySpec, noise_multiplier: float, patients: float, round_number: int) -> float:
    """Return the variance that DP-SGD's noise gives each value of the update of a site with so many patients."""
    terms = study.training
    drawn = terms.sampling_rate * patients
    step = learning_rate_of(study, round_number) * noise_multiplier * study.privacy.clip_norm / drawn
    gains = ((1.0 - terms.momentum**j) / (1.0 - terms.momentum) for j in range(1, study.local_steps + 1))
    return step**2 * math.fsum(gain**2 for gain in gains)


def between_sites_variance(spread: float, variances: Sequence[float]) -> float:
    """Return the sites' own variance from Q/P, the weighted spread of their updates in the mean over all values.

    >>> between_sites_variance(spread=5.0, variances=[1.0, 1.0])  # (5 - 1) / (2 - 2/2)
    4.0
    """
    weights = [1.0 / variance for variance in variances]
    total = math.fsum(weights)
    room = total - math.fsum(weight**2 for weight in weights) / total
    return max(0.0, (spread - (len(weights) - 1)) / room) if room > 0 else 0.0


def _between_sites(gathered: Gathered, variances: Sequence[float]) -> float:
    precisions = [1.0 / variance for variance in variances]
    # As they were sent: what a factor takes off an update later is no difference between sites.
    sent = [1.0] * len(precisions)
    squares = squared_lengths(gathered, sent, lambda window: weighted_mean(window, precisions))
    spread = math.fsum(precision * square for precision, square in zip(precisions, squares, strict=True))
    return between_sites_variance(spread / gathered.manifest.parameters, variances)
