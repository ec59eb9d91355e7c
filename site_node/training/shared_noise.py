"""One step of shared-noise DP-SGD at a site: its clipped sum on the grid, with its share of the noise, as integers.

The same draws, gradients and clipping as in `trainer.py`, and one step a round. Order matters: the clipped sum is
rounded to the grid first and noised then, so that the mechanism is the integer one that `protocol/skellam.py` accounts.
What is returned goes under the masks; the hub sees the sum over the sites only, whose noise is that of one curator over
all their patients together. A site's own integers carry a share of the noise only: they must not leave unmasked.

Source: Agarwal, Kairouz and Liu 2021, arXiv:2110.04995, section 5; Kairouz, Liu and Steinke 2021, arXiv:2102.06387.
"""

import numpy as np
from numpy.typing import NDArray

from protocol.errors import AccountingError
from protocol.manifest import manifest_of
from protocol.shared_noise import SharedNoise, shared_noise_of
from protocol.study import StudySpec
from protocol.tensors import Weights
from site_node.errors import OrderError, TooFewPatientsError
from site_node.privacy.noise import Floats, NoiseSource
from site_node.privacy.skellam import skellam_noise
from site_node.training.device import chosen_device
from site_node.training.networks import build_network, load_into
from site_node.training.patients import draw_batch
from site_node.training.precision import in_precision
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.trainer import clipped_sum_in_parts, parts_of

Whole = NDArray[np.int64]


def noised_step(
    study: StudySpec,
    base: Weights,
    patients: PreparedPatients,
    noise: NoiseSource,
    *,
    noise_multiplier: float | None,
) -> Whole:
    """Return this site's part of a step, to be summed under masks.

    Shapes: result (parameter,) int64, in the order of the base version's manifest.
    Guarantee: every value lies within the study's `value_bound`, whatever the patients are; a patient moves the values
        before the noise by at most `clip_steps` (L2); an empty draw gives noise alone. Deterministic for the source.
    Raises: OrderError if study and order disagree about noise; TooFewPatientsError without patients;
        BaseUnavailableError if the base does not fit.
    """
    if study.privacy.mechanism != "shared-noise" or noise_multiplier is None or not noise_multiplier > 0:
        raise OrderError("The order's noise does not fit the study's privacy terms.", "The gate refuses such a task.")
    if not patients.patients:
        raise TooFewPatientsError("This site has no patient to train on.", "It can still evaluate.")
    total = _clipped_sum(study, base, patients, noise)
    terms = shared_noise_of(study)
    rounded = np.clip(np.rint(total / terms.grid), -terms.sum_bound, terms.sum_bound).astype(np.int64)
    noised = rounded + skellam_noise(noise.gradients, rounded.size, terms.share_variance(noise_multiplier))
    within: Whole = np.clip(noised, -terms.value_bound, terms.value_bound)  # what a share's far tail would exceed
    return within


def _clipped_sum(study: StudySpec, base: Weights, patients: PreparedPatients, noise: NoiseSource) -> Floats:
    device = chosen_device()
    network = in_precision(study, build_network(study).to(device).train())
    load_into(network, base)
    bound = _bound(shared_noise_of(study), sum(parameter.numel() for parameter in network.parameters()))
    batch = draw_batch(study, patients, noise, device)
    total = clipped_sum_in_parts(study, network, batch, bound, parts_of(study, is_private=True))
    parts: dict[str, Floats] = {}
    start = 0
    for name, parameter in network.named_parameters():
        parts[name] = total[start : start + parameter.numel()].cpu().numpy()
        start += parameter.numel()
    return np.concatenate([_part(parts, entry.name) for entry in manifest_of(base).entries])


def _bound(terms: SharedNoise, parameters: int) -> float:
    try:
        return terms.clip_norm_for(parameters)
    except AccountingError as error:
        raise OrderError(str(error), "The study's researcher changes it.") from error


def _part(parts: dict[str, Floats], name: str) -> Floats:
    try:
        return parts[name]
    except KeyError:
        raise OrderError(
            f"The network keeps {name}, which no gradient moves; such state is not trained by sums of gradients.",
            "Choose network.normalisation: group.",
        ) from None
