"""Two classes: one logit, binary cross entropy, and histograms of the held-out patients' scores."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protocol.metrics import ScoreHistograms
from protocol.secure_aggregation.histograms import bins_of
from protocol.study import StudySpec
from site_node.cohort.cohort import Patient
from site_node.privacy.noise import NoiseSource
from site_node.privacy.patient_batch import Loss
from site_node.training.objectives.imbalance import class_weights, focused
from site_node.training.objectives.objective import Objective, Targets
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
    label = study.label

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return focused(label, cross_entropy(logits, targets)) * class_weights(label, targets)

    return loss


def _counts(
    study: StudySpec, outputs: Iterable[Tensor], patients: PreparedPatients, noise: NoiseSource
) -> ScoreHistograms:
    scores = patient_scores(study, outputs, patients)
    return _noised(study, ScoreHistograms.from_scores(scores, patients.labels, bins_of(study)), noise)


def _of_nobody(study: StudySpec, noise: NoiseSource) -> ScoreHistograms:
    return _noised(study, ScoreHistograms(bins=bins_of(study), negative=[], positive=[]), noise)


def _noised(study: StudySpec, exact: ScoreHistograms, noise: NoiseSource) -> ScoreHistograms:
    epsilon = study.evaluation.noise_epsilon
    return exact if epsilon is None else exact.noised(epsilon, noise.histograms.two_sided_geometric)


BINARY = Objective(outputs=1, targets=label_targets, loss=_loss, counts=_counts, of_nobody=_of_nobody)
