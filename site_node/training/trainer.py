"""Local training: a round's steps at one site, with differential privacy or, visibly, without.

A private step: draw patients (Poisson), sum their clipped gradients, add Gaussian noise from the site's secret stream,
divide by the expected number of patients, and let the optimiser follow. An empty draw takes the same step with noise
alone. What depends on patients is touched by the noised sum only; everything after it is post-processing.
Without DP the same draws make an ordinary minibatch step; the batch's mean gradient is bounded to `clip_norm`, the
usual remedy against divergence, so that one learning rate serves a study with and without DP.
What the algorithm adds to the gradient (FedProx, SCAFFOLD) holds no patient and comes after (`corrections.py`).
Where memory does not suffice, a step's sum over its patients is made in smaller parts (`parts.py`).
The optimiser's state begins anew each round; the learning rate may change over the rounds (`protocol/schedule.py`).

Source: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1, with the patient as the unit; McMahan et al. 2017 (FedAvg).
"""

import math
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import structlog
import torch
from torch import Tensor, nn

from protocol.schedule import learning_rate_of
from protocol.study import StudySpec
from protocol.tensors import Weights
from site_node.errors import NotFiniteError, OrderError, TooFewPatientsError
from site_node.privacy.clipping import PatientBatch, clipped_sum_of_batch
from site_node.privacy.noise import NoiseSource, add_gaussian_noise, clipping_reserve
from site_node.training.checkpoints import PassCheckpoint
from site_node.training.corrections import Correction, proximal
from site_node.training.device import chosen_device
from site_node.training.networks import build_network, images_at_once, load_into, weights_of
from site_node.training.objectives.choice import loss_of, objective_of
from site_node.training.parts import Parts, has_run_short
from site_node.training.patients import draw_batch
from site_node.training.precision import in_precision
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.processes import ALONE, Together, is_sum_over_patients
from site_node.training.training_state import Running

PLAIN_IMAGES_AT_ONCE = 256
_log = structlog.get_logger()
Report = Callable[[float], None]
"""Told the fraction of planned steps that are done, which depends on no patient."""


def train(
    study: StudySpec,
    base: Weights,
    patients: PreparedPatients,
    noise: NoiseSource,
    *,
    noise_multiplier: float | None,
    round_number: int,
    rate_factor: float | None = None,
    correction: Correction | None = None,
    together: Together = ALONE,
    checkpoint: PassCheckpoint | None = None,
    report: Report = lambda fraction: None,
) -> Weights:
    """Take a round's steps from the base version and return the new weights.

    `rate_factor` is what the round's learning rate is multiplied by at this site (`site_rates`); None: by nothing.
    `correction` is what is added to each gradient; None: what the study's own terms ask for (FedProx or nothing).
    `together` is this process's place among those that train the round, all with the same arguments.
    `checkpoint` is where the training goes on if it was killed before; None: it begins at the base.
    Guarantee: with DP, each of exactly `local_steps` steps is a Poisson-sampled Gaussian mechanism with the study's
        sampling rate and this noise multiplier, whatever the drawn patients are. Deterministic for the noise source on
        one machine with one number of threads and processes, and, to rounding, with less memory.
    Raises: OrderError if study and order disagree about noise; TooFewPatientsError without patients; NotFiniteError
        if training diverged; BaseUnavailableError if the base does not fit.
    """
    _check(study, patients, noise_multiplier)
    device = chosen_device()
    network = in_precision(study, build_network(study).to(device).train())
    load_into(network, base)
    rate = learning_rate_of(study, round_number) * (1.0 if rate_factor is None else rate_factor)
    optimizer = _optimizer(study, network, rate)
    added = (proximal(study, base) if correction is None else correction).on(network)
    expected = study.training.sampling_rate * patients.public_figure
    parts = parts_of(study, is_private=noise_multiplier is not None)
    running = Running(network, optimizer, noise, parts)
    taken = _steps_taken(running, checkpoint, together)
    if taken:
        report(taken / study.local_steps)
    for step in range(taken, study.local_steps):
        batch = together.share_of(draw_batch(study, patients, noise, device))
        if noise_multiplier is None:
            gradient = _plain_gradient(study, network, batch, expected, parts, together)
        else:
            total = together.summed(_clipped_sum(study, network, batch, noise_multiplier, parts))
            gradient = _noised(study, total, noise, noise_multiplier, together).div_(expected)
        _follow(network, optimizer, added.added_to(gradient, network))
        if checkpoint is not None:
            checkpoint.after(partial(running.state, step + 1))
        report((step + 1) / study.local_steps)
    trained = weights_of(network)
    if not all(np.isfinite(array).all() for array in trained.values()):
        raise NotFiniteError("Training diverged: the weights are not finite.", "Lower training.learning_rate.")
    return trained


def _steps_taken(running: Running, checkpoint: PassCheckpoint | None, together: Together) -> int:
    """Go on from the checkpoint, if every process found the same one; return how many steps were taken there."""
    found = None if checkpoint is None else checkpoint.found()
    if checkpoint is None or not together.agree(0 if found is None else found.step) or found is None:
        return 0
    running.go_on_from(found)
    _log.info("training_goes_on", step=found.step, part=checkpoint.name)
    return found.step


def _check(study: StudySpec, patients: PreparedPatients, noise_multiplier: float | None) -> None:
    if _noises_steps(study) != (noise_multiplier is not None):
        raise OrderError("The order's noise does not fit the study's privacy terms.", "The gate refuses such a task.")
    if noise_multiplier is not None and not (noise_multiplier > 0 and math.isfinite(noise_multiplier)):
        raise OrderError("The order's noise multiplier is not a positive number.", "The gate refuses such a task.")
    if not patients.patients:
        raise TooFewPatientsError("This site has no patient to train on.", "It can still evaluate.")


def _noises_steps(study: StudySpec) -> bool:
    return study.privacy.epsilon is not None and study.privacy.mechanism == "dp-sgd"


def _optimizer(study: StudySpec, network: nn.Module, rate: float) -> torch.optim.Optimizer:
    terms = study.training
    if terms.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=rate, weight_decay=terms.weight_decay)
    return torch.optim.SGD(network.parameters(), lr=rate, momentum=terms.momentum, weight_decay=terms.weight_decay)


def parts_of(study: StudySpec, *, is_private: bool) -> Parts:
    """Return how many images of a step go through the network at once, to begin with."""
    if is_private or study.kind == "segmentation":  # outputs for each pixel are as large as the images' maps
        at_once = images_at_once(study)
    else:
        # A loss such as Cox's compares all patients of a step with each other, so that its batch stays whole.
        at_once = sys.maxsize if objective_of(study).compares_patients else PLAIN_IMAGES_AT_ONCE
    may_be_smaller = is_sum_over_patients(study)
    if may_be_smaller and has_run_short():
        at_once = min(at_once, images_at_once(study))  # by the size of an image, where it was any number of them
    return Parts(at_once, may_be_smaller=may_be_smaller)


def clipped_sum_in_parts(
    study: StudySpec, network: nn.Module, batch: PatientBatch, bound: float, parts: Parts
) -> Tensor:
    """Return the sum of a batch's clipped patient gradients (`clipped_sum_of_batch`), in parts that memory allows.

    Raises: torch.OutOfMemoryError if memory does not suffice for a single patient.
    """
    loss = loss_of(study)

    def summed(at_once: int) -> Tensor:
        return clipped_sum_of_batch(network, loss, batch, bound, images_at_once=at_once)

    return parts.computed(summed, len(batch.images), _fewest_images(batch))


def _fewest_images(batch: PatientBatch) -> int:
    return int(batch.counts.min()) if batch.patients else 0


def _clipped_sum(
    study: StudySpec, network: nn.Module, batch: PatientBatch, noise_multiplier: float, parts: Parts
) -> Tensor:
    clip_norm = study.privacy.clip_norm
    parameters = sum(parameter.numel() for parameter in network.parameters())
    bound = clip_norm - clipping_reserve(noise_multiplier * clip_norm, parameters)
    return clipped_sum_in_parts(study, network, batch, bound, parts)


def _noised(study: StudySpec, total: Tensor, noise: NoiseSource, noise_multiplier: float, together: Together) -> Tensor:
    """Return the noised sum of clipped patient gradients: the only thing that training learns about patients."""
    deviation = noise_multiplier * study.privacy.clip_norm

    def noised() -> Tensor:
        values = total.cpu().numpy()
        add_gaussian_noise(values, deviation, noise.gradients, out=values)
        return torch.from_numpy(values).to(total.device, torch.float32)

    return together.told(noised, like=total)


def _plain_gradient(
    study: StudySpec,
    network: nn.Module,
    batch: PatientBatch,
    expected: float,
    parts: Parts,
    together: Together,
) -> Tensor:
    parameters = list(network.parameters())
    loss = loss_of(study)

    def total(at_once: int) -> Tensor:
        total = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
        for chunk in batch.chunks(at_once):
            weights = torch.repeat_interleave(1.0 / chunk.counts, chunk.counts)
            objective = (loss(network(chunk.images), chunk.targets) * weights).sum()
            total += torch.cat([g.flatten() for g in torch.autograd.grad(objective, parameters)])
        return total

    mean = together.summed(parts.computed(total, len(batch.images), _fewest_images(batch))) / expected

    def bounded() -> Tensor:
        norm = float(torch.linalg.vector_norm(mean))
        return mean * min(1.0, study.privacy.clip_norm / norm) if norm > 0 else mean

    return together.told(bounded, like=mean)


def _follow(network: nn.Module, optimizer: torch.optim.Optimizer, gradient: Tensor) -> None:
    start = 0
    for parameter in network.parameters():
        parameter.grad = gradient[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    optimizer.step()
    optimizer.zero_grad()  # frees the gradient before the next step's maps
