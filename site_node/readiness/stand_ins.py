"""Stand-ins for patients: images of noise, or rows, of the study's own form and of nobody.

What is timed on them follows from the study and the machine alone, so that it may be told (`protocol/readiness.py`).
Of each stand-in there is one image; a few are made, and stand there again and again.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocol.study import StudySpec
from site_node.cohort.cohort import ImageRef, Patient
from site_node.readiness.pace import repeated
from site_node.training.networks import input_shape
from site_node.training.objectives.choice import objective_of
from site_node.training.prepared_patients import PreparedPatients

MADE = 16
SEED = 0


def stand_ins(study: StudySpec, patients: int) -> PreparedPatients:
    """Return so many training patients, as the study's training takes them.

    Guarantee: equal for equal studies and numbers, at every hospital.
    """
    made = [_patient(study, number) for number in range(min(MADE, patients))]
    grey = np.random.default_rng(SEED).standard_normal((len(made), *input_shape(study)))
    few = PreparedPatients(
        images=grey.astype(np.float32) if study.kind == "tabular" else grey.astype(np.float16),
        rows=np.arange(len(made)),
        targets=objective_of(study).targets(study, made),
        first_image=np.arange(len(made) + 1),
        labels=np.array([patient.label for patient in made], np.int64),
        masks=_masks(study, len(made)) if study.kind == "segmentation" else None,
        findings=tuple(patient.findings for patient in made),
    )
    return repeated(few, patients)


def _patient(study: StudySpec, number: int) -> Patient:
    several = study.outcome == "multi-label"
    classes = study.label.classes
    findings = tuple((number + which) % 2 for which in range(len(classes))) if several else ()
    label = number % max(2, 1 if several else len(classes))
    value = study.regression.low if study.kind == "regression" else None
    image = ImageRef(Path(), str(number), label, findings=findings, value=value)
    return Patient(str(number), (image,), label, "train", time=float(number + 1), findings=findings)


def _masks(study: StudySpec, images: int) -> NDArray[np.uint8]:
    drawn = np.random.default_rng(SEED)
    return drawn.integers(0, len(study.label.classes), (images, *study.preprocessing.size), dtype=np.uint8)
