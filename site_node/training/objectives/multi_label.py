"""Any number of findings: a logit for each, the cross entropy of those that are known, a histogram pair for each.

What is not known of an image takes no part in its loss, and who is not known for a finding is not counted for it. The
loss is divided by the number of findings of the study, not by that of the known ones: a finding weighs the same in
every image.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from protocol.label import Label
from protocol.metrics import ScoreHistograms
from protocol.study import StudySpec
from site_node.cohort.cohort import Patient
from site_node.cohort.findings import Findings
from site_node.privacy.noise import NoiseSource
from site_node.privacy.patient_batch import Loss
from site_node.training.objectives.imbalance import finding_weights, focused
from site_node.training.objectives.objective import Objective, Targets
from site_node.training.objectives.one_versus_rest import class_histograms, classes_of_nobody
from site_node.training.objectives.scores import joined_scores
from site_node.training.prepared_patients import PreparedPatients


def masked_cross_entropy(label: Label, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean binary cross entropy of each image's known findings, over all findings of the study.

    Shapes: outputs and targets (image, finding); a target is 0, 1, or NaN where it is not known; result (image,).
    """
    known = ~torch.isnan(targets)
    # Filled before the loss, not masked after it alone: the gradient of a NaN stays NaN behind a mask.
    filled = torch.where(known, targets, 0.0)
    losses = functional.binary_cross_entropy_with_logits(outputs, filled, reduction="none")
    return torch.where(known, focused(label, losses) * finding_weights(label, filled), 0.0).mean(1)


def multi_label(study: StudySpec) -> Objective:
    """Return the objective of a study of findings."""
    return Objective(
        outputs=len(study.label.classes),
        targets=finding_targets,
        loss=_loss,
        counts=_counts,
        of_nobody=classes_of_nobody,
    )


def finding_targets(_study: StudySpec, patients: Sequence[Patient]) -> Targets:
    """Return each image's findings, or its patient's. Shapes: result (image, finding), NaN where not known."""
    return _numbers([image.findings or p.findings for p in patients for image in p.images])


def _numbers(findings: Sequence[Findings]) -> Targets:
    return np.array([[np.nan if known is None else known for known in own] for own in findings], np.float32)


def _loss(study: StudySpec) -> Loss:
    return partial(masked_cross_entropy, study.label)


def _counts(
    study: StudySpec, outputs: Iterable[Tensor], patients: PreparedPatients, noise: NoiseSource
) -> list[ScoreHistograms]:
    scores = joined_scores(study, torch.sigmoid(torch.cat(list(outputs))), patients)
    return class_histograms(study, scores, _numbers(patients.findings), noise)
