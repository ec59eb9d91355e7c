"""How good a version is on this site's held-out patients, as counts that merge.

One score for each patient, made of the images' scores as the study says; scores stay here, counts in bins leave. What
is counted is the objective's (`objectives/`). If the study asks for noise, coarser bins are used and every bin is
noised.
Under masks every split of the study is counted, also one that this site has no patients of: with zeros, or noise alone.
Nothing here fails because of what a patient's score is: a refusal instead of a report would be an answer without noise.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from protocol.secure_aggregation.histograms import sums_histograms
from protocol.study import StudySpec
from protocol.study_parts import HeldOutSplit
from protocol.tensors import Weights
from site_node.errors import NoHeldOutPatientsError
from site_node.privacy.noise import NoiseSource
from site_node.training.networks import build_network, images_at_once, load_into
from site_node.training.objectives.choice import objective_of
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.trainer import chosen_device

IMAGES_AT_ONCE = 256


def evaluate(
    study: StudySpec, weights: Weights, held_out: Mapping[HeldOutSplit, PreparedPatients], noise: NoiseSource
) -> dict[HeldOutSplit, Any]:
    """Return the counts of each split's patients; under masks of every split that the study names.

    They belong into the field of a report that `protocol.held_out.counts_field` names.
    Raises: NoHeldOutPatientsError if there is nobody to evaluate on.
    """
    if not held_out:
        raise NoHeldOutPatientsError(
            "This site has no held-out patient.",
            "Mark some as validation or test in labels.csv or in the table, or raise splits.",
        )
    device = chosen_device()
    network = build_network(study).to(device).eval()
    load_into(network, weights)
    objective = objective_of(study)
    # Outputs for each pixel are as large as the images' maps.
    at_once = images_at_once(study) if study.kind == "segmentation" else IMAGES_AT_ONCE
    counted = {
        split: objective.counts(study, outputs_of(network, patients, device, at_once), patients, noise)
        for split, patients in held_out.items()
    }
    if sums_histograms(study) and objective.of_nobody is not None:
        for split in sorted(set(study.evaluation.splits) - counted.keys()):
            counted[split] = objective.of_nobody(study, noise)
    return counted


def outputs_of(
    network: nn.Module, patients: PreparedPatients, device: torch.device, images_at_once: int = IMAGES_AT_ONCE
) -> Iterator[Tensor]:
    """Yield the network's outputs of a split's images, some images at a time, in their order.

    Shapes: each (some images, output, ...) float64.
    """
    for start in range(0, len(patients.rows), images_at_once):
        numbers = np.arange(start, min(start + images_at_once, len(patients.rows)))
        with torch.inference_mode():
            yield network(patients.pixels_of(numbers).to(device)).to(torch.float64)
