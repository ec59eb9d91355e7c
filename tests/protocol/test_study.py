from typing import Any

import pytest

from protocol.digest import digest_of
from protocol.errors import SpecificationError
from protocol.strategy_rules import NEEDS
from protocol.study import StudySpec, parse_study, study_json_schema


def minimal(**changes: Any) -> dict[str, Any]:
    study: dict[str, Any] = {
        "name": "tiny",
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "densenet"},
        "rounds": 2,
        "participants": {"training_patients": 334},
        "privacy": {"epsilon": 8.0, "delta": 1e-4},
    }
    return study | changes


def problem_of(**changes: Any) -> str:
    with pytest.raises(SpecificationError) as caught:
        parse_study(minimal(**changes))
    return str(caught.value)


def test_a_minimal_study_parses_and_has_the_digest_of_its_canonical_json() -> None:
    study = parse_study(minimal())
    assert study.digest == digest_of(study.model_dump(mode="json", by_alias=True))


def test_what_is_stored_parses_to_the_same_digest() -> None:
    study = parse_study(minimal())
    assert StudySpec.model_validate_json(study.canonical_bytes()).digest == study.digest


def test_any_change_changes_the_digest() -> None:
    assert parse_study(minimal()).digest != parse_study(minimal(seed=1)).digest


def test_a_misspelt_key_is_named() -> None:
    assert "round: unknown key" in problem_of(round=3)


def test_a_word_that_yaml_takes_for_a_truth_value_is_to_be_quoted() -> None:
    assert "Put it in quotes" in problem_of(label={"classes": [False, True]})


def test_every_fault_is_named_at_once() -> None:
    text = problem_of(rounds=0, name="Not A Name", network={})
    assert "rounds:" in text
    assert "name:" in text
    assert "network.name: missing" in text


def test_a_delta_that_would_allow_a_patient_to_be_revealed_is_refused() -> None:
    assert "3340" in problem_of(privacy={"epsilon": 8, "delta": 3e-4}).replace("10 x 334", "3340")


def test_a_large_delta_passes_with_a_named_override() -> None:
    privacy = {"epsilon": 8, "delta": 1e-3, "allow_large_delta": "teaching with public data"}
    assert parse_study(minimal(privacy=privacy)).privacy.delta == 1e-3


def test_the_number_of_training_patients_is_needed_to_judge_delta() -> None:
    assert "participants.training_patients: required" in problem_of(participants={})


def test_batch_norm_under_dp_is_refused_with_the_remedy() -> None:
    assert "Use 'group'" in problem_of(network={"name": "resnet", "normalisation": "batch"})


def test_batch_norm_without_dp_is_legal() -> None:
    parse_study(minimal(network={"name": "resnet", "normalisation": "batch"}, privacy={"epsilon": None}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cohort": {"age_min_years": 60, "age_max_years": 50}}, "Exchange them"),
        ({"splits": {"validation": 0.5, "test": 0.5}}, "leave patients to train on"),
        ({"label": {"classes": ["a", "a"]}}, "own name"),
        ({"evaluation": {"at_most": 1}}, "Raise it"),
        ({"evaluation": {"splits": ["test"], "final_version": "best-validation"}}, "needs 'validation'"),
    ],
)
def test_combinations_that_cannot_keep_their_promise_are_refused(changes: dict[str, Any], words: str) -> None:
    assert words in problem_of(**changes)


UNDER_MASKS = [
    *((("strategy", {"join": name}), f"'{name}' compares single updates") for name in NEEDS),
    (("transport", {"upload": ["top-k:0.1"]}), "would tell where its largest values are"),
]


@pytest.mark.parametrize("method", ["masking", "homomorphic"])
@pytest.mark.parametrize(("part", "words"), UNDER_MASKS)
def test_what_the_hub_could_only_do_with_single_updates_is_refused_with_the_reason(
    method: str, part: tuple[str, dict[str, str]], words: str
) -> None:
    text = problem_of(secure_aggregation={"method": method, "maximum_sites": 8}, **dict([part]))
    assert words in text


@pytest.mark.parametrize("strategy", ["median", None, {"name": "median"}, {"name": ["median"]}, {"name": 3}])
def test_a_strategy_of_the_wrong_form_or_name_is_named(strategy: Any) -> None:
    assert "strategy" in problem_of(strategy=strategy)


@pytest.mark.parametrize("data", [None, [], "name: x", 3])
def test_what_is_no_mapping_is_refused(data: object) -> None:
    with pytest.raises(SpecificationError, match="mapping"):
        parse_study(data)


def test_the_schema_describes_every_part_for_the_form() -> None:
    schema = study_json_schema()
    assert schema["properties"]["rounds"]["minimum"] == 1
    assert {"Privacy", "Training", "Cohort"} <= schema["$defs"].keys()
