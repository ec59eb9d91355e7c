"""The learning rate over the rounds: one rule for sites that step by themselves and for a hub that steps for them."""

import math

from protocol.study import StudySpec


def learning_rate_of(study: StudySpec, round_number: int) -> float:
    """Return the learning rate of a round; the first that trains is number 1, in which the rate is the study's own."""
    rate = study.training.learning_rate
    if study.training.schedule == "constant":
        return rate
    # A round beyond the planned number makes up for one that failed, at the rate of the last that was planned.
    done = min(max(round_number - 1, 0), study.rounds - 1) / study.rounds
    return rate * 0.5 * (1.0 + math.cos(math.pi * done))
