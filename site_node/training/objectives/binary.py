"""Two classes: one logit, binary cross entropy, and histograms of the held-out patients' scores."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protocol.metrics import ScoreHistograms
from protocol.study import StudySpec
from site_node.cohort.cohort import Patient
from site_node.privacy.noise import NoiseSource
from site_node.privacy.patient_batch import Loss
from site_node.training.objectives.imbalance import weighted
from site_node.training.objectives.objective import Objective, Targets
from site_node.training.objectives.one_versus_rest import class_histograms, classes_of_nobody
from site_node.training.objectives.scores import joined_scores
from site_node.training.prepared_patients import PreparedPatients


def label_targets(_study: StudySpec, patients: Sequence[Patient]) -> Targets:
    """Return the class of each image, or its patient's where it has none of its own. Shapes: result (image,)."""
    labels = [p.label if image.label is None else image.label for p in patients for image in p.images]
    return np.array(labels, np.float32)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross entropy of each image.

    Shapes: logits (image, 1) or (image,); targets and result (image,).
    """
    own = logits.reshape(targets.shape)
    return torch.nn.functional.binary_cross_entropy_with_logits(own, targets, reduction="none")


def patient_scores(study: StudySpec, outputs: Iterable[Tensor], patients: PreparedPatients) -> NDArray[np.float64]:
    """Return each patient's score of the second class. Shapes: result (patient,), in [0, 1]."""
    return joined_scores(study, torch.sigmoid(torch.cat(list(outputs))), patients)[:, 0]


def _loss(study: StudySpec) -> Loss:
    return weighted(study.label, cross_entropy)


def _counts(
    study: StudySpec, outputs: Iterable[Tensor], patients: PreparedPatients, noise: NoiseSource
) -> ScoreHistograms:
    scores = patient_scores(study, outputs, patients)
    (only,) = class_histograms(study, scores[:, None], patients.labels[:, None].astype(np.float32), noise)
    return only


def _of_nobody(study: StudySpec, noise: NoiseSource) -> ScoreHistograms:
    (only,) = classes_of_nobody(study, noise)
    return only


BINARY = Objective(outputs=1, targets=label_targets, loss=_loss, counts=_counts, of_nobody=_of_nobody)
