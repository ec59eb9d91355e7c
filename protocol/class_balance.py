"""Weights of two classes, made of a hospital's noised quality figures: each class then counts as much as the other.

The figures left once, noised and charged (`site_rates.py`); what is made of them is post-processing, so that every
gradient may carry it. A share near nothing is mostly noise: it is cut, and the weights with it.
Source: King and Zeng 2001, "Logistic Regression in Rare Events Data", section 4.2 (weighting by the classes' shares).
"""

from protocol.site_rates import QualityFigures

LEAST_SHARE = 0.05
"""Of either class: no weight is above 10."""


def balanced_weights(figures: QualityFigures, training_patients: int) -> tuple[float, float]:
    """Return what the losses of the first and of the second class are multiplied with. Pure.

    `training_patients` is the number that the hospital tells. With the shares that the figures say, both classes weigh
    the same in the sum of all losses, and the mean weight is 1.

    >>> balanced_weights(QualityFigures(positive=20, unreadable=0, repeated=0, noise_epsilon=1.0), 80)
    (0.6666666666666666, 2.0)
    """
    share = figures.positive / max(1, training_patients)
    share = min(max(share, LEAST_SHARE), 1 - LEAST_SHARE)
    return 0.5 / (1 - share), 0.5 / share
