"""How good a version is on this site's held-out patients, as histograms that merge.

One score for each patient, made of the images' scores as the study says; scores stay here, counts in bins leave. If
the study asks for noise, coarser bins are used and every bin is noised (a patient is in one bin of one histogram).
Under masks every split of the study is counted, also one that this site has no patients of: with zeros, or noise alone.
Nothing here fails because of what a patient's score is: a refusal instead of a report would be an answer without noise.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from protocol.concordance import PairCounts
from protocol.metrics import ScoreHistograms
from protocol.secure_aggregation.histograms import bins_of, sums_histograms
from protocol.study import StudySpec
from protocol.study_parts import HeldOutSplit
from protocol.tensors import Weights
from site_node.errors import NoHeldOutPatientsError
from site_node.privacy.noise import NoiseSource
from site_node.training.networks import build_network, load_into
from site_node.training.patients import PreparedPatients
from site_node.training.survival import events_of
from site_node.training.trainer import chosen_device

IMAGES_AT_ONCE = 256
UNDECIDED = 0.5
"""The score of a patient for whom the version gives no number."""


def evaluate(
    study: StudySpec, weights: Weights, held_out: Mapping[HeldOutSplit, PreparedPatients], noise: NoiseSource
) -> dict[HeldOutSplit, ScoreHistograms]:
    """Return the histograms of each split's patient scores; under masks of every split that the study names.

    Raises: NoHeldOutPatientsError if there is nobody to evaluate on.
    """
    if not held_out:
        raise _nobody()
    device = chosen_device()
    network = build_network(study).to(device).eval()
    load_into(network, weights)
    counted = {split: _histograms(study, network, patients, noise) for split, patients in held_out.items()}
    if sums_histograms(study):
        for split in sorted(set(study.evaluation.splits) - counted.keys()):
            counted[split] = _noised(study, ScoreHistograms(bins=bins_of(study), negative=[], positive=[]), noise)
    return counted


def ordered_pairs(
    study: StudySpec, weights: Weights, held_out: Mapping[HeldOutSplit, PreparedPatients]
) -> dict[HeldOutSplit, PairCounts]:
    """Return a survival study's counts of ordered pairs among each split's patients.

    Raises: NoHeldOutPatientsError if there is nobody to evaluate on.
    """
    if not held_out:
        raise _nobody()
    device = chosen_device()
    network = build_network(study).to(device).eval()
    load_into(network, weights)
    counted: dict[HeldOutSplit, PairCounts] = {}
    for split, patients in held_out.items():
        hazards = _joined(study, patients, _logits(network, patients, device))
        targets = patients.targets[patients.first_image[:-1]]
        risks = np.where(np.isfinite(hazards), hazards, 0.0)  # nothing fails because of one patient's risk
        counted[split] = PairCounts.of(risks, np.abs(targets).astype(np.float64), events_of(targets))
    return counted


def patient_scores(
    study: StudySpec, network: nn.Module, patients: PreparedPatients, device: torch.device
) -> NDArray[np.float64]:
    """Return a score in [0, 1] for each patient, the mean or the largest of the images' scores.

    Guarantee: a patient whose score is not finite counts as 0.5, and nothing is raised, with noise or without. Weights
        can be made so that one chosen patient's score alone overflows; a refusal in place of a report would then tell
        the hub about that patient, past the histograms' noise. A version that diverged for everybody has an AUC of 0.5.
    """
    joined = _joined(study, patients, torch.sigmoid(_logits(network, patients, device)))
    return np.where(np.isfinite(joined), joined, UNDECIDED)


def _logits(network: nn.Module, patients: PreparedPatients, device: torch.device) -> torch.Tensor:
    parts = []
    with torch.inference_mode():
        for start in range(0, len(patients.rows), IMAGES_AT_ONCE):
            numbers = np.arange(start, min(start + IMAGES_AT_ONCE, len(patients.rows)))
            parts.append(network(patients.pixels_of(numbers).to(device)).squeeze(1).to(torch.float64))
    return torch.cat(parts)


def _joined(study: StudySpec, patients: PreparedPatients, of_images: torch.Tensor) -> NDArray[np.float64]:
    values, starts = of_images.cpu().numpy(), patients.first_image[:-1]
    if study.label.patient_score == "max":
        largest: NDArray[np.float64] = np.maximum.reduceat(values, starts)
        return largest
    mean: NDArray[np.float64] = np.add.reduceat(values, starts) / np.diff(patients.first_image)
    return mean


def _nobody() -> NoHeldOutPatientsError:
    return NoHeldOutPatientsError(
        "This site has no held-out patient.",
        "Mark some as validation or test in labels.csv or in the table, or raise splits.",
    )


def _histograms(
    study: StudySpec, network: nn.Module, patients: PreparedPatients, noise: NoiseSource
) -> ScoreHistograms:
    scores = np.clip(patient_scores(study, network, patients, next(network.parameters()).device), 0.0, 1.0)
    return _noised(study, ScoreHistograms.from_scores(scores, patients.labels, bins_of(study)), noise)


def _noised(study: StudySpec, exact: ScoreHistograms, noise: NoiseSource) -> ScoreHistograms:
    epsilon = study.evaluation.noise_epsilon
    return exact if epsilon is None else exact.noised(epsilon, noise.histograms.two_sided_geometric)
