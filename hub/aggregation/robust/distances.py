"""How far a round's updates lie from each other: all pairs in one reading of the files, in the memory of a window."""

import numpy as np
from numpy.typing import NDArray

from hub.aggregation.gathering import Gathered, scaled_blocks

Pairs = NDArray[np.float64]
"""(site, site) float64."""


def squared_distances(gathered: Gathered) -> Pairs:
    """Return all pairs' squared distances.

    Guarantee: the same to the bit on any machine; memory is a window.
    """
    sites = len(gathered.updates)
    found = np.zeros((sites, sites), np.float64)
    for window in gathered.windows():
        for rows in scaled_blocks(window, gathered.factors):
            for site, row in enumerate(rows[:-1]):
                apart = rows[site + 1 :] - row
                # A sum by halves, which is the same on any machine; a matrix product need not be.
                found[site, site + 1 :] += np.add.reduce(apart * apart, axis=1)
    return found + found.T


def inner_products(gathered: Gathered, centre: int) -> Pairs:
    """Return all pairs' inner products, each update taken from one of them.

    Made from the values and not from distances: where one update is a million times the others, the difference of its
    distances would be rounding alone. Guarantee: as above.
    """
    sites = len(gathered.updates)
    found = np.zeros((sites, sites), np.float64)
    for window in gathered.windows():
        for rows in scaled_blocks(window, gathered.factors):
            apart = rows - rows[centre]
            for site, row in enumerate(apart):
                found[site, site:] += np.add.reduce(apart[site:] * row, axis=1)
    return found + np.triu(found, 1).T
