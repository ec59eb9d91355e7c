"""Can a patient's image be rebuilt from an update? Tried on the easiest case: one patient, one image, one step.

The update is the site's own (`training/trainer.py`). Somebody who holds it knows the version it began from, so they
search for the image whose gradient points the same way, among smooth images first. The label needs no search: it
shows in the sign of the last bias' gradient. Three views of the same step:

    plain    without differential privacy: the gradient itself
    private  clipped and noised, as every step of a study with this epsilon is
    masked   without noise, rounded and under masks, as the hub receives it in a study with secure aggregation

What is found says how well this attack does on one image, which is no proof of what no attack can do. The proof is the
accountant's for `private`, and for `masked` that each word of the ring is equally likely whatever the image.

Source: Zhu, Liu and Han 2019, arXiv:1906.08935 (gradient matching); Zhao, Mopuri and Bilen 2020, arXiv:2001.02610
(labels); Geiping et al. 2020, arXiv:2003.14053 (cosine distance, total variation, signed steps of Adam).
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protocol.privacy_accounting import noise_multiplier_of
from protocol.secure_aggregation.fixed_point import quantise
from protocol.secure_aggregation.masking import SignedMask, add_masks
from protocol.secure_aggregation.ring import Ring
from protocol.study import StudySpec, parse_study
from protocol.tensors import Weights
from site_node.errors import OrderError
from site_node.privacy.noise import NoiseSource
from site_node.training.networks import build_network, initial_weights, load_into
from site_node.training.objectives.choice import loss_of
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.trainer import train

View = Literal["plain", "private", "masked"]
VIEWS: tuple[View, ...] = ("plain", "private", "masked")
Image = NDArray[np.float32]
"""(row, column) float32, as a study's preparation makes it: mean 0, deviation 1."""

ITERATIONS = 1000
STEP = 0.1
SLOWER_AT = (3 / 8, 5 / 8, 7 / 8)
"""Fractions of the search after which its steps become ten times smaller."""
SMOOTHNESS = 0.03
"""Weight of the total variation beside the cosine distance."""
MASKED_SITES = 8
VALUE_RANGE = 0.5


@dataclass(frozen=True)
class Update:
    """What a step at one site gave away: the version it began from, and the difference it made (or seemed to)."""

    study: StudySpec
    base: Weights
    difference: Weights
    noise_multiplier: float | None = None


def one_image_update(study: StudySpec, image: Image, label: int, view: View, seed: int) -> Update:
    """Train one step on one image and return what this view shows of it.

    Guarantee: `private` has the noise of every step of the study, or of epsilon 8 if the study has no differential
        privacy; deterministic for the seed.
    Raises: OrderError if the study's images are not flat.
    """
    if len(study.preprocessing.size) != 2:
        raise OrderError("The attack rebuilds flat images.", "Name a study with preprocessing.size of two numbers.")
    noise_multiplier = None
    if view == "private":
        noise_multiplier = noise_multiplier_of(with_epsilon(study, study.privacy.epsilon or 8.0))
    step = _one_step(study, private=view == "private")
    base = initial_weights(step)
    patients = PreparedPatients(
        images=image[None, None].astype(np.float16),
        rows=np.arange(1),
        targets=np.full(1, label, np.float32),
        first_image=np.arange(2),
        labels=np.full(1, label, np.int64),
    )
    noise = NoiseSource(_secret(seed, "noise"), "one step", "one image")
    trained = train(step, base, patients, noise, noise_multiplier=noise_multiplier, round_number=1)
    difference = {name: base[name] - trained[name] for name in base}
    return Update(step, base, masked(difference, seed) if view == "masked" else difference, noise_multiplier)


def masked(difference: Weights, seed: int) -> Weights:
    """Return an update as the hub receives it under masks, read as if there were none.

    Rounded by chance to the levels that eight sites leave room for, in the ring of 16 bits; then the site's own mask
    and those with its seven peers.
    """
    ring, levels = Ring(16), Ring(16).largest // MASKED_SITES
    flat = np.concatenate([array.ravel() for array in difference.values()])
    draws = np.random.default_rng(seed).integers(0, 2**32, flat.size, dtype=np.uint32)
    words = ring.encode(quantise(flat, VALUE_RANGE, levels, draws))
    masks = [SignedMask(_secret(seed, f"mask {number}"), -1 if number % 2 else 1) for number in range(MASKED_SITES)]
    seen = (ring.decode(add_masks(words, masks, ring)) * (VALUE_RANGE / levels)).astype(np.float32)
    ends = np.cumsum([array.size for array in difference.values()])
    parts = np.split(seen, ends[:-1])
    return {name: part.reshape(difference[name].shape) for name, part in zip(difference, parts, strict=True)}


def rebuild(update: Update, seed: int, iterations: int = ITERATIONS) -> Image:
    """Search for the image whose gradient the update is.

    Shapes: result (row, column), its mean and deviation set to 0 and 1, which the attacker knows of prepared images.
    """
    network = build_network(update.study)
    load_into(network, update.base)
    names = [name for name, _ in network.named_parameters()]
    target = torch.cat([torch.from_numpy(update.difference[name]).flatten() for name in names])
    label = (target[-1:] < 0).float()
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, 1, *update.study.preprocessing.size, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([image], lr=STEP)
    milestones = [int(iterations * fraction) for fraction in SLOWER_AT]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    for _ in range(iterations):
        loss = loss_of(update.study)(network(image), label).sum()
        gradient = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
        distance = 1.0 - torch.nn.functional.cosine_similarity(_flat(gradient), target, dim=0)
        (image.grad,) = torch.autograd.grad(distance + SMOOTHNESS * _total_variation(image), [image])
        image.grad.sign_()
        optimizer.step()
        schedule.step()
    found = image.detach().numpy()[0, 0]
    return np.asarray((found - found.mean()) / max(float(found.std()), 1e-6), np.float32)


def with_epsilon(study: StudySpec, epsilon: float | None) -> StudySpec:
    """Return the study with another epsilon.

    Raises: SpecificationError if the study is illegal with it.
    """
    document = study.model_dump(mode="json", by_alias=True)
    document["privacy"]["epsilon"] = epsilon
    return parse_study(document)


def _one_step(study: StudySpec, *, private: bool) -> StudySpec:
    document = with_epsilon(study, 8.0 if private else None).model_dump(mode="json", by_alias=True)
    document["preprocessing"]["augmentation"] = "none"
    document.pop("personal")
    document["training"] |= {
        "local_steps": 1, "local_epochs": None, "sampling_rate": 1.0, "optimizer": "sgd", "momentum": 0.0,
        "weight_decay": 0.0, "proximal": 0.0,
    }  # fmt: skip
    return parse_study(document)


def _flat(gradient: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.flatten() for part in gradient])


def _total_variation(image: Tensor) -> Tensor:
    return image.diff(dim=-1).abs().mean() + image.diff(dim=-2).abs().mean()


def _secret(seed: int, purpose: str) -> bytes:
    return hashlib.sha256(f"wardround.inversion-audit/1 {purpose} {seed}".encode()).digest()
