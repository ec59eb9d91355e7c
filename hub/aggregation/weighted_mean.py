"""The weighted mean of updates, one window at a time. Pure.

Example: updates [1] and [4] with the weights 2 and 1 have the mean (2 x 1 + 1 x 4) / 3 = [2].
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hub.errors import AggregationError


def weighted_mean(
    updates: NDArray[np.float32], weights: Sequence[float], factors: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """Return sum(weight * factor * update) / sum(weight); without factors they are 1.

    A factor stands above the line only: an update that counts half leaves the others' part of the mean as it was.

    Shapes: updates (site, value) float32; weights and factors one for each site; result (value,) float64.
    Guarantee: the same to the bit wherever it is computed and however the values are cut into windows: products and
        sums are IEEE float64, taken site after site in the given order, never by a reordering matrix product.
    Raises: AggregationError if weights and updates differ in number, or the weights' sum is not positive.
    """
    total = float(sum(weights))
    scales = (1.0,) * len(weights) if factors is None else factors
    if not len(weights) == len(scales) == len(updates) or not total > 0:
        raise AggregationError("Expected a weight for each update, and a positive sum of weights.", "Ask the operator.")
    accumulated, product = np.zeros(updates.shape[1], np.float64), np.empty(updates.shape[1], np.float64)
    for update, weight, scale in zip(updates, weights, scales, strict=True):
        accumulated += np.multiply(update, weight * scale, out=product, dtype=np.float64)
    return accumulated / total
