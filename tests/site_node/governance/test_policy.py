"""The policy's rules on a study, each with the sentence that the hospital reads."""

from pathlib import Path
from typing import Any, get_args

import pytest

from protocol.messages import Reason
from protocol.privacy_accounting import noise_multiplier_of
from protocol.privacy_terms import Privacy
from site_node.errors import SettingsError
from site_node.governance.policy import Policy, load_policy, objection_to, objections_to, policy_text
from site_node.governance.reasons import SENTENCES
from tests.fakes.gated_site import study_of

CASES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"networks": ["resnet"]}, {}, "not among `networks`"),
    ({"modalities": ["CT"]}, {}, "DX is not among `modalities`"),
    ({}, {"cohort": {}}, "open to every modality"),
    ({"maximum_epsilon": 3.0}, {}, "above `maximum_epsilon`"),
    ({"maximum_delta": 1e-5}, {}, "above `maximum_delta`"),
    ({}, {"privacy": {"epsilon": None}}, "without differential privacy"),
    ({"mechanisms": ["site-level"]}, {}, "'dp-sgd' is not among `mechanisms`"),
    ({"noised_evaluation": True}, {}, "`noised_evaluation` demands it"),
    ({"summed_evaluation": True}, {}, "`summed_evaluation` refuses that"),
    ({"secure_aggregation_required": True}, {}, "`secure_aggregation_required` refuses that"),
    ({"secure_aggregation_required": ["homomorphic"]}, {}, "hub would see this hospital's update alone"),
    ({}, {"evaluation": {"noise_epsilon": 1.0, "at_most": 100}, "rounds": 60}, "lower evaluation.at_most"),
    (
        {"dp_required": False, "maximum_epsilon": 3.0},
        {"privacy": {"epsilon": None}, "site_rates": {"adapt": "quality", "quality_epsilon": 4.0}},
        "site_rates.quality_epsilon 4 is above `maximum_epsilon` 3.",
    ),
]


@pytest.mark.parametrize(("policy", "study", "words"), CASES)
def test_what_the_hospital_does_not_allow_is_said(policy: dict[str, Any], study: dict[str, Any], words: str) -> None:
    asked = study_of(**study)
    objection = objection_to(Policy.model_validate(policy), asked, noise_multiplier_of(asked))
    assert objection is not None
    assert words in objection.sentence
    assert objection.reason is Reason.POLICY


def test_all_objections_are_told_and_the_first_decides() -> None:
    asked = study_of(network={"name": "vit", "arguments": {}}, privacy={"epsilon": 9.0, "delta": 5e-4})
    told = [objection.sentence for objection in objections_to(Policy(), asked, None)]
    rules = ["`networks`", "`maximum_epsilon`", "`maximum_delta`"]
    assert all(rule in one for rule, one in zip(rules, told, strict=True)), told
    assert objection_to(Policy(), asked, None) == objections_to(Policy(), asked, None)[0]


def test_what_the_hospital_allows_meets_no_objection() -> None:
    asked = study_of()
    assert objection_to(Policy(), asked, noise_multiplier_of(asked)) is None
    assert objection_to(Policy(), asked, (noise_multiplier_of(asked) or 0) * 2) is None


def test_a_masked_study_satisfies_who_will_not_be_seen_alone() -> None:
    masked = {"method": "masking", "maximum_sites": 8, "maximum_weight": 100}
    sites = {"minimum_sites": 4, "training_patients": 100}
    asked = study_of(participants=sites, secure_aggregation=masked, transport={"upload": []})
    for required in (True, ["masking"], ["masking", "homomorphic"]):
        policy = Policy.model_validate({"secure_aggregation_required": required, "mechanisms": ["dp-sgd"]})
        assert objection_to(policy, asked, noise_multiplier_of(asked)) is None
    objection = objection_to(Policy(secure_aggregation_required=["homomorphic"]), asked, noise_multiplier_of(asked))
    assert objection is not None
    assert objection.sentence == "secure_aggregation.method 'masking' is not among `secure_aggregation_required`."
    with pytest.raises(ValueError, match="secure_aggregation_required"):
        Policy.model_validate({"secure_aggregation_required": []})  # true says: any


def test_the_policy_knows_every_mechanism_of_a_study() -> None:
    known = get_args(Privacy.model_fields["mechanism"].annotation)
    assert set(Policy.model_validate({"mechanisms": list(known)}).mechanisms) == set(known)
    with pytest.raises(ValueError, match="mechanisms"):
        Policy.model_validate({"mechanisms": ["hope"]})


@pytest.mark.parametrize("noise", [None, 0.0, -1.0, float("inf"), 0.2])
def test_noise_that_misses_the_target_is_refused(noise: float | None) -> None:
    objection = objection_to(Policy(), study_of(), noise)
    assert objection is not None
    assert objection.reason is Reason.BAD_TASK


def test_the_template_parses_to_the_careful_defaults(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(policy_text())
    assert load_policy(path) == Policy()
    path.write_text(policy_text("automatic"))
    assert load_policy(path).approval == "automatic"


@pytest.mark.parametrize(
    "text", ["nonsense: 1", "approval: [", "- a", "maximum_epsilon: .nan", "minimum_patients: many"]
)
def test_a_broken_policy_allows_nothing_and_names_the_fault(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"policy\.yaml"):
        load_policy(path)
    with pytest.raises(SettingsError, match="missing"):
        load_policy(tmp_path / "absent.yaml")


def test_every_reason_of_the_protocol_has_its_sentence_here() -> None:
    assert set(SENTENCES) == set(Reason)
