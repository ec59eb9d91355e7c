"""Who takes part in a step: the Poisson sampling that the privacy accountant is told of.

Each patient is drawn independently with the same rate, at every step anew, so a batch may be of any size and may be
empty. A fixed batch size, or batches cut from a shuffled list, would be another mechanism with a weaker guarantee.
Source: Abadi et al. 2016, arXiv:1607.00133, section 3.1; Mironov, Talwar and Zhang 2019, arXiv:1908.10530.
"""

import numpy as np
from numpy.typing import NDArray

from site_node.privacy.noise import SecureStream

Numbers = NDArray[np.int64]


def draw_patients(stream: SecureStream, patients: int, rate: float) -> Numbers:
    """Return the numbers of the drawn patients, in order.

    Shapes: result (drawn patient,), each below `patients`.
    Guarantee: each patient is drawn independently of all others with probability `rate`, to within 2**-53.
    Raises: ValueError if the rate is not in (0, 1].
    """
    if not 0 < rate <= 1:
        raise ValueError("Expected a sampling rate above 0 and at most 1.")
    return np.flatnonzero(stream.uniforms(patients) <= rate)


def draw_images(stream: SecureStream, images: int, at_most: int) -> Numbers:
    """Return which of a drawn patient's images are used: all, or so many drawn without repetition, in order."""
    if images <= at_most:
        return np.arange(images)
    return np.sort(stream.permutation(images)[:at_most])
