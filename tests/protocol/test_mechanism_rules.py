from dataclasses import dataclass
from typing import Any

import pytest

from protocol.errors import SpecificationError
from protocol.study import parse_study
from tests.protocol.test_shared_noise import specification as shared_noise


def site_level(**changes: dict[str, Any]) -> dict[str, Any]:
    parts: dict[str, dict[str, Any]] = {
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "convnet"},
        "strategy": {"weighting": "equal"},
        "participants": {"minimum_sites": 20, "training_patients": 400},
        "privacy": {"epsilon": 50.0, "unit": "site", "mechanism": "site-level", "update_norm": 0.5},
    }
    return {"name": "sites", "rounds": 5, **{part: {**terms, **changes.get(part, {})} for part, terms in parts.items()}}


@dataclass(frozen=True)
class Refusal:
    study: dict[str, Any]
    said: str


REFUSED = {
    "shared noise without noise": Refusal(shared_noise(privacy={"epsilon": None}), "nothing without noise"),
    "shared noise that hides sites": Refusal(shared_noise(privacy={"unit": "site"}), "'site' goes with"),
    "several steps between two sums": Refusal(shared_noise(training={"local_steps": 2}), "must be 1"),
    "momentum at sites that take no step": Refusal(shared_noise(training={"momentum": 0.9}), "plain gradient descent"),
    "Adam at sites that take no step": Refusal(shared_noise(training={"optimizer": "adam"}), "plain gradient descent"),
    "a share of noise in the clear": Refusal(shared_noise(secure_aggregation={"method": "none"}), "protects nobody"),
    "shared noise with equal weights": Refusal(shared_noise(strategy={"weighting": "equal"}), "weighting: patients"),
    "the unit patient on whole updates": Refusal(site_level(privacy={"unit": "patient"}), "'site' goes with"),
    "whole updates without noise": Refusal(site_level(privacy={"epsilon": None}), "nothing without noise"),
    "nine sites as units": Refusal(site_level(participants={"minimum_sites": 9}), "below 10"),
    "sites as units whose receipts tell numbers": Refusal(
        site_level(privacy={"receipt_epsilon": 0.1}), "privacy.receipt_epsilon.*Leave it out"
    ),
    "sites as units that count by patients": Refusal(site_level(strategy={"weighting": "patients"}), "equal"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_study_is_refused_with_the_reason_for(case: str) -> None:
    with pytest.raises(SpecificationError, match=REFUSED[case].said):
        parse_study(REFUSED[case].study)


def test_both_mechanisms_have_a_legal_study() -> None:
    assert parse_study(shared_noise()).privacy.mechanism == "shared-noise"
    assert parse_study(site_level()).privacy.unit == "site"
