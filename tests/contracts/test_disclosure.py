"""Every message field that leaves a hospital is named with what covers it, and the claim fits the field's type."""

import re
import types
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, Field

from protocol.concordance import PairCounts
from protocol.disclosure import DISCLOSURES, NOT_COVERED, REMARKS, Cover, cover_of
from protocol.message import Message
from protocol.messages import HUB_TO_SITE, SITE_TO_HUB, Enrolment
from protocol.metrics import ScoreHistograms
from protocol.study_parts import Name
from protocol.value_histograms import ValueHistogram

LEAVING: tuple[type[Message], ...] = (*SITE_TO_HUB, Enrolment)
ANNOUNCED = {"UpdateNotice": {"payload"}}  # bytes beside the message, which it announces


def leaves(annotation: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the path and type of every value that an annotation can hold."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from leaves(arguments[0], path)
    elif origin in (Union, types.UnionType):
        for choice in arguments:
            if choice is not type(None):
                yield from leaves(choice, path)
    elif origin in (list, tuple, set, frozenset):
        for item in arguments:
            if item is not Ellipsis:
                yield from leaves(item, path)
    elif origin is dict:
        yield from leaves(arguments[0], f"{path}.key")
        yield from leaves(arguments[1], f"{path}.*")
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from fields_of(annotation, f"{path}.")
    else:
        yield path, annotation


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and type of every value in a message, as it stands on the wire."""
    for name, field in model.model_fields.items():
        yield from leaves(field.annotation, prefix + (field.alias or name))


def every_leaving_field() -> list[tuple[str, str, Any]]:
    return [(kind.__name__, path, annotation) for kind in LEAVING for path, annotation in fields_of(kind)]


@pytest.mark.parametrize("kind", LEAVING, ids=lambda kind: kind.__name__)
def test_every_field_that_leaves_says_what_covers_it(kind: type[Message]) -> None:
    stated = set(DISCLOSURES.get(kind.__name__, {})) - ANNOUNCED.get(kind.__name__, set())
    found = {path for path, _ in fields_of(kind)}
    assert found - stated == set(), f"say in protocol/disclosure.py what these fields of {kind.__name__} tell"
    assert stated - found == set(), f"{kind.__name__} has no such field any more"


def test_only_kinds_that_leave_are_listed() -> None:
    assert set(DISCLOSURES) == {kind.__name__ for kind in LEAVING}


def test_every_remark_is_about_a_field_and_every_cover_is_used() -> None:
    for kind, path in REMARKS:
        assert cover_of(kind, path) in Cover
    assert {cover for fields in DISCLOSURES.values() for cover in fields.values()} == set(Cover)
    assert NOT_COVERED


def test_what_is_called_a_word_can_only_be_a_word() -> None:
    for kind, path, annotation in every_leaving_field():
        if cover_of(kind, path) is Cover.WORD:
            is_word = get_origin(annotation) is Literal or annotation is bool
            assert is_word or issubclass(annotation, StrEnum), f"{kind}.{path} admits more than fixed words"


def test_what_is_sealed_has_one_length() -> None:
    """A ciphertext's length would tell what it holds; here every one matches a pattern of fixed length."""
    for kind in LEAVING:
        sealed = [path for path, cover in DISCLOSURES[kind.__name__].items() if cover is Cover.SEALED]
        schema = kind.model_json_schema(by_alias=True)["properties"]
        for path in sealed:
            field = schema[path.removesuffix(".*")]
            values = [field["additionalProperties"]] if "additionalProperties" in field else []
            values += [field["items"]] if "items" in field else []
            values += field.get("patternProperties", {}).values()
            patterns = [value.get("pattern", "") for value in values if isinstance(value, dict)]
            assert patterns, f"{kind.__name__}.{path}"
            assert all(re.fullmatch(r"\^\[0-9a-f\]\{\d+\}\$", pattern) for pattern in patterns), (kind.__name__, path)


def test_only_scores_of_held_out_patients_are_counts_of_patients() -> None:
    measured = {
        (kind, path) for kind, fields in DISCLOSURES.items() for path, c in fields.items() if c is Cover.HELD_OUT
    }
    assert {kind for kind, _ in measured} == {"EvaluationReport"}
    assert {path.split(".")[-1] for _, path in measured} <= {
        *ScoreHistograms.model_fields,
        *PairCounts.model_fields,
        *ValueHistogram.model_fields,
    }


def test_the_walk_finds_what_lies_deep_and_the_table_would_miss_it() -> None:
    """The test above is only worth something if a new field, wherever it hides, is found."""

    class Inner(BaseModel):
        age: int

    class Leaking(Message):
        schema_: Literal["wardround.leaking/1"] = Field(default="wardround.leaking/1", alias="schema")
        site: Name
        by_name: dict[str, list[Inner | None]]
        pairs: list[tuple[str, Annotated[float, Field(gt=0)]]] | None = None

    paths = [path for path, _ in fields_of(Leaking)]
    assert paths == ["schema", "site", "by_name.key", "by_name.*.age", "pairs", "pairs"]
    with pytest.raises(KeyError):
        cover_of("Leaking", "by_name.*.age")
    with pytest.raises(KeyError):
        cover_of("Approval", "patients_by_age")


def test_no_kind_goes_both_ways() -> None:
    """What the hub says is not in the table: a kind that a site could send too would slip past it."""
    assert set(HUB_TO_SITE) & set(LEAVING) == set()
