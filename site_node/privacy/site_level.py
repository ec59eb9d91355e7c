"""A site's whole update, cut to one length and noised: what leaves under site-level privacy.

Both noises are put on a grid as all noise here (`noise.py`), with the grid's rounding taken off the length.
Source: Andrew et al. 2021, arXiv:1905.03871, Algorithm 1; `protocol/site_level.py` says what differs.
"""

from dataclasses import dataclass

import numpy as np

from protocol.manifest import manifest_of
from protocol.privacy_terms import Privacy
from protocol.site_level import site_noise, update_deviation
from protocol.tensors import Weights, flatten, unflatten
from site_node.privacy.noise import Floats, SecureStream, add_gaussian_noise, clipping_reserve


@dataclass(frozen=True)
class Released:
    """What may leave: the noised update, and the noised bit that says whether it needed no cutting."""

    update: Weights
    uncut: float | None


def release_update(
    update: Weights, privacy: Privacy, noise_multiplier: float, update_norm: float, stream: SecureStream
) -> Released:
    """Cut an update to a length, noise it, and say with noise whether it needed no cutting.

    Guarantee: whatever the update is (one that is not finite counts as zero), replacing it by any other is hidden by a
        Gaussian mechanism with this noise multiplier, over both values together.
    """
    manifest = manifest_of(update)
    flat = flatten(update, manifest).astype(np.float64)
    norm = float(np.linalg.norm(flat))
    if not np.isfinite(norm):
        flat, norm = np.zeros_like(flat), 0.0
    noise = site_noise(privacy, noise_multiplier)
    noised = add_gaussian_noise(
        _cut(flat, norm, update_norm, privacy, noise_multiplier),
        update_deviation(privacy, noise_multiplier, update_norm),
        stream,
    )
    bit = None if noise.bit is None else _noised_bit(norm <= update_norm, noise.bit, stream)
    with np.errstate(over="ignore"):
        return Released(unflatten(noised.astype(np.float32), manifest), bit)


def _cut(flat: Floats, norm: float, length: float, privacy: Privacy, noise_multiplier: float) -> Floats:
    # Two rounded updates differ by at most twice the length and what rounding adds once.
    deviation = update_deviation(privacy, noise_multiplier, length)
    bound = length - 0.5 * clipping_reserve(deviation, flat.size)
    return flat * (bound / norm) if norm > bound else flat


def _noised_bit(is_uncut: bool, deviation: float, stream: SecureStream) -> float:
    # 0 and 1 are points of the grid, so that rounding adds nothing to the sensitivity of 1.
    return float(add_gaussian_noise(np.array([float(is_uncut)]), deviation, stream)[0])
