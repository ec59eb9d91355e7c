"""Survival: when an event happens, learnt with Cox's partial likelihood, and judged by counting ordered pairs.

A patient's target is the time, negative where observation ended without the event; a time of 0 keeps its sign. The
network's output is the log-hazard: the larger, the sooner the event.
Source: Cox 1972, with Breslow's treatment of ties; the sign as in XGBoost's `survival:cox`.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def survival_target(time: float, *, event: bool) -> float:
    """Return a patient's target: the time, signed by whether the event was seen."""
    return float(np.copysign(time, 1.0 if event else -1.0))


def events_of(targets: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell whose event was seen. Shapes: targets and result (patient,)."""
    return ~np.signbit(targets)


def cox_loss(log_hazards: Tensor, targets: Tensor) -> Tensor:
    """Return each patient's term of the negative partial log-likelihood; 0 without an event.

    Shapes: log_hazards, targets and result (patient,), one row for each patient.
    The term of an event at time t is log(sum of the hazards of all whose time is t or later) - own log-hazard. It
    depends on the other patients of the batch: no gradient belongs to one patient, and the batch must not be cut.
    """
    times, order = torch.sort(targets.abs(), descending=True, stable=True)
    sums = torch.logcumsumexp(log_hazards[order], 0)
    # Breslow: at risk at a time is also who has the same time, wherever it stands among them.
    last_of_tie = torch.searchsorted(-times, -times, right=True) - 1
    terms = torch.empty_like(log_hazards)
    terms[order] = sums[last_of_tie]
    return torch.where(torch.signbit(targets), 0.0, terms - log_hazards)
