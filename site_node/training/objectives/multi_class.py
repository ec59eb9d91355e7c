"""Exactly one of several classes: softmax cross entropy, and one-versus-rest histograms of the held-out patients."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from protocol.metrics import ScoreHistograms
from protocol.study import StudySpec
from site_node.privacy.noise import NoiseSource
from site_node.privacy.patient_batch import Loss
from site_node.training.objectives.binary import label_targets
from site_node.training.objectives.imbalance import weighted
from site_node.training.objectives.objective import Objective
from site_node.training.objectives.one_versus_rest import class_histograms, classes_of_nobody
from site_node.training.objectives.scores import joined_scores
from site_node.training.prepared_patients import PreparedPatients


def softmax_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of each image. Shapes: outputs (image, class), targets (image,) of class numbers."""
    return functional.cross_entropy(outputs, targets.long(), reduction="none")


def multi_class(study: StudySpec) -> Objective:
    """Return the objective of a study of several classes."""
    return Objective(
        outputs=len(study.label.classes),
        targets=label_targets,
        loss=_loss,
        counts=_counts,
        of_nobody=classes_of_nobody,
    )


def _loss(study: StudySpec) -> Loss:
    return weighted(study.label, softmax_cross_entropy)


def _counts(
    study: StudySpec, outputs: Iterable[Tensor], patients: PreparedPatients, noise: NoiseSource
) -> list[ScoreHistograms]:
    scores = joined_scores(study, torch.softmax(torch.cat(list(outputs)), 1), patients)
    labels = (patients.labels[:, None] == np.arange(len(study.label.classes))).astype(np.float32)
    return class_histograms(study, scores, labels, noise)
