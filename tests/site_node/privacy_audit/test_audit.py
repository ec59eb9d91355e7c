"""The claim, audited: one training each, seeds fixed beforehand, none retried."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from protocol.errors import SpecificationError
from protocol.privacy_accounting import calibrate_noise
from protocol.study import StudySpec, parse_study
from site_node.errors import OrderError
from site_node.privacy.clipping import clipped_sum_of_batch
from site_node.privacy_audit import audit as module
from site_node.privacy_audit.attacks import Released
from site_node.privacy_audit.audit import AuditedRun, audit, audited_study
from site_node.privacy_audit.canaries import Canaries, make_canaries, make_patients, with_canaries
from site_node.privacy_audit.reference_studies import PATIENTS, small_study
from site_node.training import trainer
from site_node.training.networks import initial_weights
from tests.site_node.training.examples import make_patients as patients_with_images

SEED = 0
FEWER = 400
STUDY = small_study(None)


def run(epsilon: float | None, study: StudySpec = STUDY, canaries: int = FEWER) -> AuditedRun:
    return audit(study, make_patients(study, PATIENTS, SEED), epsilon, canaries=canaries, seed=SEED)


@cache
def honest(epsilon: float | None) -> AuditedRun:
    return run(epsilon)


def changed(**parts: dict[str, Any]) -> StudySpec:
    document = STUDY.model_dump(mode="json", by_alias=True)
    for part, values in parts.items():
        document[part] |= values
    return parse_study(document)


SHORT = changed(training={"local_steps": 2, "sampling_rate": 0.3})


def test_without_differential_privacy_epsilon_is_measured_to_be_at_least_three() -> None:
    found = honest(None)
    assert found.measured >= 3.0
    assert found.noise_multiplier is None
    assert found.holds  # nothing was claimed


@pytest.mark.parametrize("epsilon", [8.0, 1.0])
def test_with_differential_privacy_no_attacker_refutes_the_claim(epsilon: float) -> None:
    """So few guesses could refute epsilon 1 and not 8, of which only the accounting is tested here."""
    found = honest(epsilon)
    assert all(finding.lower_bound < epsilon for finding in found.findings)
    assert found.holds
    assert found.accounted is not None
    assert 0.97 * epsilon <= found.accounted <= epsilon


def test_the_attack_is_strong_enough_to_see_epsilon_eight() -> None:
    assert honest(8.0).measured > 0.5


@pytest.mark.slow
def test_the_audit_of_the_documents() -> None:
    off, weak, strong = (run(epsilon, canaries=module.CANARIES) for epsilon in (None, 8.0, 1.0))
    assert off.measured >= 3.0
    assert weak.holds
    assert strong.holds
    assert off.measured > weak.measured > strong.measured


def test_training_that_forgets_to_clip_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def unclipped(network: Any, loss: Any, batch: Any, max_norm: float, **more: Any) -> torch.Tensor:
        return clipped_sum_of_batch(network, loss, batch, 1e9, **more)

    monkeypatch.setattr(trainer, "clipped_sum_of_batch", unclipped)
    assert not run(1.0).holds


def test_noise_that_is_too_small_for_the_claim_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_little(study: StudySpec) -> float:
        return calibrate_noise(study.training.sampling_rate, study.rounds, 20.0, study.privacy.delta)

    monkeypatch.setattr(module, "noise_multiplier_of", too_little)
    assert not run(1.0).holds


def test_an_audit_can_be_repeated_and_another_seed_is_another_audit() -> None:
    one, other = run(8.0, SHORT, 60), run(8.0, SHORT, 60)
    assert replace(one, seconds=0.0) == replace(other, seconds=0.0)
    elsewhere = audit(SHORT, make_patients(SHORT, PATIENTS, 1), 8.0, canaries=60, seed=1)
    assert elsewhere.included != one.included


def test_a_canary_that_is_out_is_replaced_by_nothing() -> None:
    # The number of included canaries is not public: with nobody drawn, it must not show in the versions.
    study = audited_study(changed(training={"local_steps": 1, "sampling_rate": 1e-12}), 8.0, 40)
    patients, canaries = make_patients(study, 20, SEED), make_canaries(study, 20, SEED)
    released = Released(study, 1.0, 40)
    ends = []
    for included in (np.ones(20, bool), np.zeros(20, bool)):
        trained_on = with_canaries(patients, Canaries(canaries.images, canaries.labels, included))
        *_, end = module._versions(released, initial_weights(study), trained_on, SEED)
        ends.append(end)
    start = initial_weights(study)
    for name in start:
        noise = ends[0][name] - start[name]
        assert np.abs(noise).max() > 0
        assert np.allclose(noise, ends[1][name] - start[name], rtol=1e-4)


def test_patients_with_several_images_can_be_audited_beside_canaries() -> None:
    found = audit(SHORT, patients_with_images([3, 1, 2, 5]), 8.0, canaries=40, seed=SEED)
    assert found.findings[0].guesses.made == 8


def test_steps_sampling_and_delta_are_the_studys_own() -> None:
    study = changed(
        training={"optimizer": "adam", "local_steps": 7},
        privacy={"spare_tasks": 3},
        preprocessing={"augmentation": "light"},
    )
    audited = audited_study(study, 2.0, 300)
    assert audited.maximum_steps == study.maximum_steps == 9 * 7
    assert audited.training.sampling_rate == study.training.sampling_rate
    assert audited.privacy.delta == study.privacy.delta
    assert (audited.privacy.epsilon, audited.training.local_steps) == (2.0, 1)
    assert (audited.training.optimizer, audited.preprocessing.augmentation) == ("sgd", "none")


@pytest.mark.parametrize("claim", [None, 4.0])
def test_a_study_with_quality_figures_is_audited_without_them(claim: float | None) -> None:
    rates = {"adapt": "quality", "quality_epsilon": 0.5}
    study = parse_study({**small_study(4.0).model_dump(mode="json", by_alias=True), "site_rates": rates})
    assert audited_study(study, claim, 700).site_rates.adapt == "none"


def test_a_study_with_noised_counts_is_audited_without_their_noise() -> None:
    document = small_study(4.0).model_dump(mode="json", by_alias=True)
    study = parse_study({**document, "privacy": document["privacy"] | {"count_epsilon": 0.5}})
    assert audited_study(study, 4.0, 700).privacy.count_epsilon is None


def test_a_study_with_receipts_is_audited_without_them() -> None:
    document = small_study(4.0).model_dump(mode="json", by_alias=True)
    study = parse_study({**document, "privacy": document["privacy"] | {"receipt_epsilon": 0.01}})
    assert audited_study(study, 4.0, 700).privacy.receipt_epsilon is None


def test_what_cannot_be_audited_is_refused_with_the_reason() -> None:
    with pytest.raises(SpecificationError, match="epsilon"):
        audited_study(STUDY, -1.0, 100)
    with pytest.raises(OrderError, match="Lower --canaries"):
        audit(changed(network={"arguments": {"channels": [512] * 3, "strides": [2] * 3, "kernels": [3] * 3}}),
              make_patients(STUDY, 10, 0), None, canaries=600)  # fmt: skip
