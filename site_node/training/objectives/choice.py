"""Which objective is a study's: the one place where training and evaluation ask for the kind of outcome."""

from collections.abc import Callable, Mapping

from protocol.outcome import Outcome
from protocol.study import StudySpec
from site_node.privacy.patient_batch import Loss
from site_node.training.objectives.binary import BINARY
from site_node.training.objectives.multi_class import multi_class
from site_node.training.objectives.multi_label import multi_label
from site_node.training.objectives.objective import Objective
from site_node.training.objectives.regression import REGRESSION
from site_node.training.objectives.segmentation import segmentation
from site_node.training.objectives.survival import SURVIVAL

OBJECTIVES: Mapping[Outcome, Callable[[StudySpec], Objective]] = {
    "binary": lambda _: BINARY,
    "multi-class": multi_class,
    "multi-label": multi_label,
    "survival": lambda _: SURVIVAL,
    "segmentation": segmentation,
    "regression": lambda _: REGRESSION,
}


def objective_of(study: StudySpec) -> Objective:
    """Return what a study trains and counts."""
    return OBJECTIVES[study.outcome](study)


def loss_of(study: StudySpec) -> Loss:
    """Return the loss of a study: outputs (image, output, ...), targets (image, ...) -> losses (image,), not reduced.

    That of a survival study compares patients: it is of a batch as a whole.
    """
    return objective_of(study).loss(study)
