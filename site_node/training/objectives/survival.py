"""When an event happens: Cox's loss over a batch, and counts of ordered pairs (`site_node/training/survival.py`)."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from protocol.concordance import PairCounts
from protocol.study import StudySpec
from site_node.cohort.cohort import Patient
from site_node.privacy.noise import NoiseSource
from site_node.privacy.patient_batch import Loss
from site_node.training.objectives.objective import Objective, Targets
from site_node.training.objectives.scores import joined
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.survival import cox_loss, events_of, survival_target


def _targets(_study: StudySpec, patients: Sequence[Patient]) -> Targets:
    # A patient of a survival study has a time: the cohort holds no other.
    signed = [survival_target(p.time or 0.0, event=p.label == 1) for p in patients for _ in p.images]
    return np.array(signed, np.float32)


def _loss(_study: StudySpec) -> Loss:
    return cox_loss


def _counts(study: StudySpec, outputs: Iterable[Tensor], patients: PreparedPatients, _noise: NoiseSource) -> PairCounts:
    hazards = joined(study, torch.cat(list(outputs)), patients)[:, 0]
    targets = patients.targets[patients.first_image[:-1]]
    risks = np.where(np.isfinite(hazards), hazards, 0.0)  # nothing fails because of one patient's risk
    return PairCounts.of(risks, np.abs(targets).astype(np.float64), events_of(targets))


SURVIVAL = Objective(outputs=1, targets=_targets, loss=_loss, counts=_counts, compares_patients=True)
