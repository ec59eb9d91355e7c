"""From the scores of images to those of patients, as the study says. Scores stay here; counts in bins leave."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from protocol.study import StudySpec
from site_node.training.prepared_patients import PreparedPatients

UNDECIDED = 0.5
"""The score of a patient for whom the version gives no number."""


def joined(study: StudySpec, of_images: Tensor, patients: PreparedPatients) -> NDArray[np.float64]:
    """Return the mean or the largest of each patient's images' values. Shapes: (image, ...) -> (patient, ...)."""
    values, starts = of_images.cpu().numpy(), patients.first_image[:-1]
    if study.label.patient_score == "max":
        largest: NDArray[np.float64] = np.maximum.reduceat(values, starts)
        return largest
    images = np.diff(patients.first_image).reshape(-1, *[1] * (values.ndim - 1))
    mean: NDArray[np.float64] = np.add.reduceat(values, starts) / images
    return mean


def joined_scores(study: StudySpec, of_images: Tensor, patients: PreparedPatients) -> NDArray[np.float64]:
    """Return each patient's scores, in [0, 1].

    Shapes: of_images (image, output); result (patient, output).
    Guarantee: a patient whose score is not finite counts as 0.5, and nothing is raised, with noise or without. Weights
        can be made so that one chosen patient's score alone overflows; a refusal in place of a report would then tell
        the hub about that patient, past the histograms' noise. A version that diverged for everybody has an AUC of 0.5.
    """
    values = joined(study, of_images, patients)
    return np.asarray(np.clip(np.where(np.isfinite(values), values, UNDECIDED), 0.0, 1.0), np.float64)
