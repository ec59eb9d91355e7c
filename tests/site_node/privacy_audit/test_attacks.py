import numpy as np
import pytest
import torch

from site_node.privacy.clipping import clipped_sum_of_batch
from site_node.privacy_audit.attacks import GradientAttack, Persons, Released, estimate, losses_of_canaries
from site_node.privacy_audit.audit import audited_study
from site_node.privacy_audit.reference_studies import small_study
from site_node.training.networks import build_network, initial_weights
from site_node.training.objectives.choice import loss_of
from tests.site_node.training.examples import make_batch

PATIENTS, CANARIES = 3, 5
PERSONS = PATIENTS + CANARIES
STUDY = audited_study(small_study(8.0), 8.0, PERSONS)


def persons(images_of_each: list[int]) -> Persons:
    batch = make_batch(images_of_each)
    owners = torch.repeat_interleave(torch.arange(len(images_of_each)), batch.counts)
    return Persons(batch.images, batch.targets, owners, PATIENTS, CANARIES)


def attack(noise_multiplier: float | None, images_of_each: list[int] | None = None) -> GradientAttack:
    known = persons(images_of_each or [1] * PERSONS)
    return GradientAttack(Released(STUDY, noise_multiplier, PERSONS), known)


def test_a_persons_gradient_is_the_mean_over_the_images_clipped_like_the_sites() -> None:
    images_of_each = [2, 1, 3, 1, 1, 2, 1, 1]
    found = attack(1.0, images_of_each).gradients(initial_weights(STUDY))
    network, batch = build_network(STUDY), make_batch(images_of_each)
    total = clipped_sum_of_batch(network, loss_of(STUDY), batch, STUDY.privacy.clip_norm, images_at_once=64)
    assert torch.allclose(found.sum(0).double(), total, atol=1e-4)
    assert float(found.norm(dim=1).max()) <= STUDY.privacy.clip_norm + 1e-5


def test_the_short_form_of_the_estimator_is_the_long_one() -> None:
    # y = G's + e: G R^-1 (y - E y) and G R^-1 G' with R = noise + G'DG written out in the space of parameters.
    generator = np.random.default_rng(2)
    gradients = generator.normal(size=(PERSONS, 40))
    spread = torch.from_numpy(generator.uniform(0.1, 0.3, PERSONS))
    seen, noise = generator.normal(size=40), 2.5**2
    covariance = noise * np.eye(40) + gradients.T @ np.diag(spread) @ gradients
    found, precision = estimate(
        torch.from_numpy(gradients @ seen), torch.from_numpy(gradients @ gradients.T), spread, noise
    )
    assert np.allclose(found, gradients @ np.linalg.solve(covariance, seen))
    assert np.allclose(precision, gradients @ np.linalg.solve(covariance, gradients.T))


def test_without_noise_one_step_tells_who_was_drawn() -> None:
    attacker = attack(None)
    base = initial_weights(STUDY)
    drawn = np.array([1, 0, 1, 1, 0, 0, 1, 0], float)
    attacker.observe(base, _stepped(attacker, base, drawn))
    scores = attacker.scores()
    assert scores[drawn[PATIENTS:] == 1].min() > scores[drawn[PATIENTS:] == 0].max()


def test_noise_far_above_the_gradients_leaves_the_scores_even() -> None:
    attacker = attack(1e6)
    base = initial_weights(STUDY)
    attacker.observe(base, _stepped(attacker, base, np.ones(PERSONS)))
    assert np.abs(attacker.scores()).max() < 1e-6


@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_any_sampling_rate_can_be_attacked(rate: float) -> None:
    training = STUDY.training.model_copy(update={"sampling_rate": rate})
    study = STUDY.model_copy(update={"training": training})
    attacker = GradientAttack(Released(study, 1.0, PERSONS), persons([1] * PERSONS))
    base = initial_weights(study)
    attacker.observe(base, base)
    assert np.isfinite(attacker.scores()).all()


def test_losses_are_those_of_the_canaries_alone() -> None:
    known, base = persons([2, 1, 3, 1, 1, 1, 1, 1]), initial_weights(STUDY)
    losses = losses_of_canaries(STUDY, base, known)
    assert losses.shape == (CANARIES,)
    assert np.all(losses > 0)
    moved = Persons(known.images.clone(), known.targets, known.owners, PATIENTS, CANARIES)
    moved.images[:6] += 3.0
    assert np.array_equal(losses, losses_of_canaries(STUDY, base, moved))


def _stepped(attacker: GradientAttack, base: dict[str, np.ndarray], drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Return the version that a step with these persons and no noise leads to."""
    total = drawn @ attacker.gradients(base).numpy()
    terms, start, stepped = STUDY.training, 0, dict(base)
    for name, _ in build_network(STUDY).named_parameters():
        size = base[name].size
        share = total[start : start + size].reshape(base[name].shape)
        stepped[name] = (base[name] - terms.learning_rate / (terms.sampling_rate * PERSONS) * share).astype(np.float32)
        start += size
    return stepped
