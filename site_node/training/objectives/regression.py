"""A number for each image: Huber's or the squared loss, and a histogram of the held-out patients' absolute errors.

The network's one output is the number as a part of the study's range: 0 stands for `regression.low`, 1 for `high`.
A patient's number is joined of the images' as scores are (`label.patient_score`), the drawn and the predicted alike.
Source: Huber 1964 (the loss).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from protocol.study import StudySpec
from protocol.value_histograms import ValueHistogram
from site_node.cohort.cohort import Patient
from site_node.privacy.noise import NoiseSource
from site_node.privacy.patient_batch import Loss
from site_node.training.objectives.objective import Objective, Targets
from site_node.training.objectives.scores import joined
from site_node.training.objectives.values import noised_values, values_of_nobody
from site_node.training.prepared_patients import PreparedPatients


def value_targets(study: StudySpec, patients: Sequence[Patient]) -> Targets:
    """Return each image's number as a part of the range. Shapes: result (image,), in [0, 1]."""
    low, high = study.regression.low, study.regression.high
    # An image of a regression study has a number in the range: the cohort holds no other.
    return np.array([(image.value or 0.0) - low for p in patients for image in p.images], np.float32) / (high - low)


def regression_loss(study: StudySpec) -> Loss:
    """Return the loss of images. Shapes: outputs (image, 1) or (image,); targets and result (image,)."""
    terms = study.regression

    def huber(outputs: Tensor, targets: Tensor) -> Tensor:
        own = outputs.reshape(targets.shape)
        return functional.huber_loss(own, targets, reduction="none", delta=terms.huber_delta)

    def squared(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.reshape(targets.shape) - targets).square()

    return huber if terms.loss == "huber" else squared


def patients_errors(study: StudySpec, outputs: Iterable[Tensor], patients: PreparedPatients) -> NDArray[np.float64]:
    """Return each patient's absolute error, in the unit of the numbers. Shapes: result (patient,).

    Guarantee: a patient for whom the version gives no number has the largest error, and nothing fails.
    """
    of_images = torch.cat(list(outputs)).flatten(1)[:, 0].clamp(0.0, 1.0)
    predicted = joined(study, of_images, patients)
    known = joined(study, torch.from_numpy(np.asarray(patients.targets, np.float64)), patients)
    errors = np.where(np.isfinite(predicted), np.abs(predicted - known), 1.0)
    return np.asarray(errors * (study.regression.high - study.regression.low), np.float64)


def _counts(
    study: StudySpec, outputs: Iterable[Tensor], patients: PreparedPatients, noise: NoiseSource
) -> list[ValueHistogram]:
    return noised_values(study, patients_errors(study, outputs, patients)[:, None], noise)


REGRESSION = Objective(
    outputs=1, targets=value_targets, loss=regression_loss, counts=_counts, of_nobody=values_of_nobody
)
