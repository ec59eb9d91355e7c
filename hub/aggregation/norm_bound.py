"""How long an honest update may be: the bound on its L2 norm. Pure.

It is no defence against a hospital that wants to do harm (the threat model says what one can do); it keeps one broken
site from ending a study. It is generous: several times what training and noise of the study's terms can make.
"""

import math

from protocol.site_level import update_deviation
from protocol.study import StudySpec

# Local training may make a model of any size out of small beginnings, but not ten times as long as it was and each
# value moved by one besides.
BASE_FACTOR = 10.0
# The norm of Gaussian noise over many values lies within a few per cent of its mean; four allows for very few values.
NOISE_FACTOR = 4.0
# Fresh weights are of order one or smaller; no value of a version 0 should reach ten.
FRESH_VALUE = 10.0


def update_norm_bound(
    study: StudySpec,
    noise_multiplier: float | None,
    base_norm: float,
    parameters: int,
    training_patients: int,
    update_norm: float | None = None,
    rate_factor: float | None = None,
) -> float:
    """Return the largest norm of a difference that is accepted from a site with so many training patients.

    `update_norm` and `rate_factor` are what the site's task names: the length to cut to, and its own learning rate's
    factor.
    """
    if update_norm is not None and noise_multiplier is not None:
        deviation = update_deviation(study.privacy, noise_multiplier, update_norm)
        return update_norm + NOISE_FACTOR * deviation * math.sqrt(parameters)
    bound = BASE_FACTOR * (1.0 + base_norm) + math.sqrt(parameters)
    training = study.training
    factor = 1.0 if rate_factor is None else max(1.0, rate_factor)
    steps, rate = study.local_steps, factor * training.learning_rate / (1.0 - training.momentum)
    if training.optimizer == "adam":
        # Adam moves each value by about the learning rate a step, whatever the gradient.
        return bound + NOISE_FACTOR * rate * steps * math.sqrt(parameters)
    if noise_multiplier is not None:
        clip = study.privacy.clip_norm
        lot = max(1.0, training.sampling_rate * training_patients)
        noise = noise_multiplier * clip * math.sqrt(parameters) / lot
        bound += NOISE_FACTOR * rate * (steps * clip + math.sqrt(steps) * noise)
    return bound


def fresh_norm_bound(parameters: int) -> float:
    """Return the largest norm of a version 0 that is accepted."""
    return FRESH_VALUE * math.sqrt(max(1, parameters))
