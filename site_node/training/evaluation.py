"""How good a version is on this site's held-out patients, as counts that merge.

One score for each patient, made of the images' scores as the study says; scores stay here, counts in bins leave. What
is counted is the objective's (`objectives/`). If the study asks for noise, coarser bins are used and every bin is
noised.
Under masks every split of the study is counted, also one that this site has no patients of: with zeros, or noise alone.
Noised counts are made of every split that had patients when the study was approved, so that nobody sees the last one
opt out.
Nothing here fails because of what a patient's score is: a refusal instead of a report would be an answer without noise.
"""

from collections.abc import Collection, Iterator, Mapping
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
from site_node.training.device import chosen_device
from site_node.training.networks import build_network, images_at_once, load_into
from site_node.training.objectives.choice import objective_of
from site_node.training.parts import Parts
from site_node.training.prepared_patients import PreparedPatients

IMAGES_AT_ONCE = 256


def evaluate(
    study: StudySpec,
    weights: Weights,
    held_out: Mapping[HeldOutSplit, PreparedPatients],
    noise: NoiseSource,
    approved: Collection[HeldOutSplit] = (),
) -> dict[HeldOutSplit, Any]:
    """Return the counts of each split's patients; under masks of every split that the study names.

    `approved` names the splits that had patients when the study was approved: noised, they are counted even if all of
    them opted out since. The counts belong into the field of a report that `protocol.held_out.counts_field` names.
    Raises: NoHeldOutPatientsError if there is nobody to evaluate on.
    """
    objective = objective_of(study)
    without_patients = set[HeldOutSplit]()
    if objective.of_nobody is not None and (held_out or approved):
        if sums_histograms(study):
            without_patients = set(study.evaluation.splits) - held_out.keys()
        elif study.evaluation.noise_epsilon is not None:
            without_patients = set(approved) - held_out.keys()
    if not held_out and not without_patients:
        raise NoHeldOutPatientsError(
            "This site has no held-out patient.",
            "Mark some as validation or test in labels.csv or in the table, or raise splits.",
        )
    device = chosen_device()
    network = build_network(study).to(device).eval()
    load_into(network, weights)
    # Outputs for each pixel are as large as the images' maps.
    parts = Parts(images_at_once(study) if study.kind == "segmentation" else IMAGES_AT_ONCE)
    counted = {
        split: objective.counts(study, outputs_of(network, patients, device, parts), patients, noise)
        for split, patients in held_out.items()
    }
    if objective.of_nobody is not None:
        counted |= {split: objective.of_nobody(study, noise) for split in sorted(without_patients)}
    return counted


def outputs_of(
    network: nn.Module, patients: PreparedPatients, device: torch.device, parts: Parts | None = None
) -> Iterator[Tensor]:
    """Yield the network's outputs of a split's images, some images at a time, in their order.

    Shapes: each (some images, output, ...) float64.
    Raises: torch.OutOfMemoryError if memory does not suffice for a single image.
    """
    parts = Parts(IMAGES_AT_ONCE) if parts is None else parts
    done, images = 0, len(patients.rows)

    def outputs(at_once: int) -> Tensor:
        numbers = np.arange(done, min(done + at_once, images))
        with torch.inference_mode():
            found: Tensor = network(patients.pixels_of(numbers).to(device))
            return found.to(torch.float64)

    while done < images:
        found = parts.computed(outputs, images - done)
        done += len(found)
        yield found
