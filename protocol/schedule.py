"""The learning rate over the rounds: one rule for sites that step by themselves and for a hub that steps for them.

    constant   the study's rate
    cosine     half a cosine towards zero (Loshchilov and Hutter 2017, arXiv:1608.03983, one period)
    linear     a straight line towards zero
    step       times `step_factor` after every `step_rounds` rounds, down to a millionth

Before it, in `warm_up_rounds` rounds, the rate rises evenly: of two such rounds the first has a third of the study's
rate, the second two thirds (Goyal et al. 2017, arXiv:1706.02677, section 2.2).
"""

import math

from protocol.study import StudySpec

SMALLEST_FACTOR = 1e-6


def learning_rate_of(study: StudySpec, round_number: int) -> float:
    """Return the learning rate of a round; the first that trains is number 1.

    Guarantee: above zero and at most the study's own rate. A round beyond the planned number makes up for one that
        failed, at the rate of the last that was planned.
    """
    terms = study.training
    planned = min(max(round_number, 1), study.rounds)
    if planned <= terms.warm_up_rounds:
        return terms.learning_rate * planned / (terms.warm_up_rounds + 1)
    done = planned - terms.warm_up_rounds - 1
    fraction = done / (study.rounds - terms.warm_up_rounds)
    factors = {
        "constant": 1.0,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * fraction)),
        "linear": 1.0 - fraction,
        "step": max(SMALLEST_FACTOR, terms.step_factor ** (done // terms.step_rounds)),
    }
    return terms.learning_rate * factors[terms.schedule]
