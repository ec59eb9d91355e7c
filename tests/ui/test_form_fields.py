"""The form follows the schema, and says nothing that the defaults say already."""

from dataclasses import replace

from protocol.study import parse_study, study_json_schema
from ui.form_fields import CHOICE_WORDS, NEEDED_WITH, Field, groups_of, specification_of, starting_value, yaml_of


def all_fields() -> tuple[Field, ...]:
    return tuple(field for group in groups_of(study_json_schema()) for field in group.fields)


def field_of(path: str) -> Field:
    return next(field for field in all_fields() if ".".join(field.path) == path)


def test_every_key_of_the_schema_has_one_field() -> None:
    study = parse_study(specification_of({f.path: starting_value(f) for f in all_fields()}, all_fields()))
    tree = study.model_dump(mode="json", by_alias=True)
    constants = {"schema"}
    leaves = {
        (key, *rest)
        for key, value in tree.items()
        for rest in ([(inner,) for inner in value] if isinstance(value, dict) else [()])
    }
    assert {field.path for field in all_fields()} == {path for path in leaves if path[-1] not in constants}


def test_kinds_come_from_the_types() -> None:
    kinds = {
        "rounds": "integer",
        "privacy.epsilon": "number",
        "cohort.modality": "words",
        "cohort.sex": "several",
        "preprocessing.size": "integers",
        "network.arguments": "mapping",
        "network.normalisation": "choice",
        "description": "paragraph",
    }
    assert {path: field_of(path).kind for path in kinds} == kinds


def test_optional_numbers_may_be_none() -> None:
    assert field_of("privacy.epsilon").nullable
    assert field_of("cohort.age_min_years").nullable
    assert not field_of("rounds").nullable


def test_a_value_equal_to_its_default_is_left_out() -> None:
    specification = specification_of({f.path: starting_value(f) for f in all_fields()}, all_fields())
    assert "training" not in specification
    assert specification["privacy"] == {"epsilon": 8.0}
    assert yaml_of(specification).startswith("title: ")


def test_a_part_that_this_version_does_not_know_appears_by_itself() -> None:
    schema = study_json_schema()
    schema["properties"]["robustness"] = {"type": "object", "properties": {"trim": {"type": "number", "default": 0.1}}}
    last = groups_of(schema)[-1]
    assert last.title == "More"
    assert last.fields[0].path == ("robustness", "trim")


def test_a_required_value_is_always_written() -> None:
    field = replace(field_of("rounds"), default=5)
    assert specification_of({("rounds",): 5}, (field,)) == {"rounds": 5}


def test_each_worded_choice_is_one_of_the_schema_and_has_its_words() -> None:
    fields = {field.path: field for group in groups_of(study_json_schema()) for field in group.fields}
    for path, words in CHOICE_WORDS.items():
        assert set(fields[path].choices) == set(words)


def test_the_terms_of_a_hidden_sum_stand_among_the_advanced() -> None:
    fields = [field for group in groups_of(study_json_schema()) for field in group.fields]
    hidden = [field for field in fields if field.path[0] == "secure_aggregation"]
    assert [field.path[1] for field in hidden if not field.advanced] == ["method"]


def test_a_field_that_a_choice_needs_stands_with_the_others_once_it_is_made() -> None:
    def needed(**chosen: str) -> set[str]:
        values = {tuple(path.split("__")): value for path, value in chosen.items()}
        return {".".join(field.path) for field in all_fields() if field.advanced and field.needed(values)}

    assert needed() == needed(secure_aggregation__method="none", privacy__mechanism="dp-sgd") == set()
    assert needed(secure_aggregation__method="masking") == {
        "secure_aggregation.maximum_sites",
        "secure_aggregation.maximum_weight",
        "transport.upload",
    }
    assert needed(privacy__mechanism="site-level") == {
        "privacy.unit",
        "privacy.update_norm",
        "strategy.weighting",
    }
    assert needed(privacy__mechanism="shared-noise") == {"privacy.honest_fraction"}
    assert needed(kind="tabular") == {"table.features", "label.time_column"}
    assert needed(pace__mode="buffered") == {"pace.buffer"}


def test_every_field_that_is_needed_with_a_choice_and_that_choice_are_of_the_schema() -> None:
    fields = {field.path: field for field in all_fields()}
    for path, (chosen, values) in NEEDED_WITH.items():
        assert fields[path].advanced
        assert values <= set(fields[chosen].choices)
